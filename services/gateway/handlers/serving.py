"""What deployments serve, and what clients send beside requests: data sets announced, feedback; the routing events."""

from services.contracts.events import DatasetReady, DeploymentChanged, Event, FeedbackReceived, ReplicaReported
from services.gateway.domain.requests import Accepted, Caller
from services.gateway.domain.routing import Served
from services.gateway.errors import OutboxFull, RoutesNotRead
from services.gateway.handlers.predictions import unknown
from services.gateway.ports import Ports
from services.kit.core import telemetry
from services.kit.core.idempotency import bind_key
from services.kit.messaging.envelope import Envelope


def served(tenant: str, ports: Ports) -> tuple[Served, ...]:
    """What the tenant's deployments serve, from memory. Raises RoutesNotRead while that is not known."""
    if not ports.routes_read():
        raise RoutesNotRead(retry_after_seconds=ports.policy.retry_after_seconds)
    return ports.routes.served(tenant)


async def announce_dataset(event: DatasetReady, caller: Caller, ports: Ports) -> Accepted:
    """Publishes that a data set lies ready. Raises KeyReused or OutboxFull."""
    return await _accept(event, caller, ports)


async def send_feedback(event: FeedbackReceived, caller: Caller, ports: Ports) -> Accepted:
    """Publishes what somebody says of an answer. Raises UnknownDeployment, KeyReused or OutboxFull."""
    if not ports.routes.knows(caller.tenant, event.deployment):
        raise unknown(event.deployment, ports)
    return await _accept(event, caller, ports)


async def _accept(event: Event, caller: Caller, ports: Ports) -> Accepted:
    """event and response commit together, so a repeated key gives the first answer even after a crash."""
    idempotency_key = bind_key(
        caller.tenant, caller.idempotency_key, event.type_name().encode(), event.model_dump_json().encode()
    )
    async with ports.store.transaction() as tx:
        if idempotency_key is not None and (earlier := await tx.find_idempotent_response(idempotency_key)) is not None:
            return Accepted(*earlier.split(" "))
        waiting = await tx.waiting_events()
        if waiting >= ports.policy.outbox_limit:
            raise OutboxFull(waiting=waiting, retry_after_seconds=ports.policy.outbox_retry_seconds)
        event_id = await tx.emit(event, tenant=caller.tenant)
        accepted = Accepted(event_id=event_id, trace_id=telemetry.current_trace_id())
        if idempotency_key is not None:
            await tx.save_idempotent_response(idempotency_key, f"{accepted.event_id} {accepted.trace_id}")
        return accepted


async def follow_deployment(envelope: Envelope[DeploymentChanged], ports: Ports) -> None:
    """Takes the weights; a generation that is known already changes nothing."""
    ports.routes.deployment_changed(envelope.tenant, envelope.event, envelope.trace, at=envelope.time)


async def follow_replica(envelope: Envelope[ReplicaReported], ports: Ports) -> None:
    """Takes the report, keeps a line to each replica, and forgets those both silent and unreachable."""
    now = ports.clock.monotonic()
    ports.routes.replica_reported(envelope.event, at=now)
    for replica in ports.routes.replicas():
        if ports.routes.is_stale(replica, at=now) and ports.replicas.waiting(replica.id) is None:
            ports.routes.forget(replica.id)
    ports.replicas.keep(ports.routes.replicas())
