"""The gateway's use cases: classify, announce a data set, send feedback, make keys, follow the routing events."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from opentelemetry import trace

from services.contracts.errors import Kind, Refusal
from services.contracts.events import DatasetReady, DeploymentChanged, Event, FeedbackReceived, ReplicaReported
from services.gateway.domain.limits import spend
from services.gateway.domain.requests import (
    Accepted,
    Answer,
    Caller,
    Classify,
    check_request_id,
    check_sticky_key,
    check_texts,
)
from services.gateway.domain.routing import Replica, sticky_ticket
from services.gateway.errors import (
    DeadlinePassed,
    DeploymentNotReady,
    OtherTenant,
    OutboxFull,
    RoutesNotRead,
    UnknownDeployment,
)
from services.gateway.ports import Ports, Question
from services.gateway.telemetry import FIRST_REQUEST, REQUEST_SECONDS, REQUESTS, RETRIES
from services.kit import telemetry
from services.kit.envelope import Envelope
from services.kit.keys import KeyRecord, NewKey
from services.kit.log import logger
from services.kit.once import once

ELSEWHERE: Final = frozenset({Kind.UNAVAILABLE, Kind.OVERLOADED, Kind.INTERNAL, Kind.NOT_FOUND})
"""Failures of one replica that another may not share: classifying twice harms nothing."""

PATIENT: Final = frozenset({Kind.UNAVAILABLE, Kind.NOT_FOUND})
"""Of those, the ones that pass by themselves: a replica restarts, or has not loaded the version yet."""


@dataclass(slots=True)
class _Attempts:
    """What was tried for one request, and how it failed."""

    failed: set[tuple[str, int]] = field(default_factory=set)
    hard_failures: int = 0
    last: Refusal | None = None

    def note(self, replica: Replica, version: int, refusal: Refusal) -> None:
        self.failed.add((replica.id, version))
        self.hard_failures += refusal.kind not in PATIENT
        self.last = refusal


async def classify(command: Classify, ports: Ports) -> Answer:
    """Answers with the version that the weights (or the sticky key) choose.

    A failing replica is left for another, a failing canary for the primary; where no replica is ready the
    request waits `ready_wait_seconds` for one. Raises UnknownDeployment, NothingServed, VersionNotServed,
    DeploymentNotReady, DeadlinePassed, and what the replica refuses.
    """
    started = ports.clock.monotonic()
    version, outcome = 0, "internal"
    try:
        answer = await _classify(command, ports)
        version, outcome = answer.version, "ok"
        spend(answer.tokens)
        return answer
    except Refusal as refusal:
        outcome = refusal.code
        raise
    finally:
        known = command.deployment if ports.routes.knows(command.tenant, command.deployment) else ""
        REQUESTS.labels(known, version, outcome).inc()
        REQUEST_SECONDS.labels(known).observe(ports.clock.monotonic() - started)


async def _classify(command: Classify, ports: Ports) -> Answer:
    check_texts(command.texts, limit_chars=ports.policy.text_limit_chars)
    check_request_id(command.request)
    check_sticky_key(command.sticky_key)
    if not ports.routes.knows(command.tenant, command.deployment):
        raise _unknown(command.deployment, ports)
    ticket = sticky_ticket(command.deployment, command.sticky_key) if command.sticky_key else ports.generator.random()
    began = ports.clock.monotonic()
    give_up_at = min(command.deadline, began + ports.policy.ready_wait_seconds)
    attempts = _Attempts()
    while True:
        check_deadline(command.deadline, ports)
        choice = _choose(command, ticket, attempts, ports)
        if choice is None:
            await _wait_for_a_replica(command, attempts, give_up_at, ports)
            continue
        replica, version = choice
        try:
            answer = await _counted(command, replica, version, ports, began=began)
        except Refusal as refusal:
            if refusal.kind not in ELSEWHERE:
                raise
            attempts.note(replica, version, refusal)
            if attempts.hard_failures >= ports.policy.attempts:
                raise
            RETRIES.labels(refusal.code).inc()
            continue
        _mirror(command, answer.version, ports)
        return answer


def check_deadline(deadline: float, ports: Ports) -> None:
    """Raises DeadlinePassed: whoever asked has given up, so nothing is begun for them."""
    if ports.clock.monotonic() >= deadline:
        raise DeadlinePassed


def _choose(command: Classify, ticket: float, attempts: _Attempts, ports: Ports) -> tuple[Replica, int] | None:
    plan = ports.routes.plan(command.tenant, command.deployment, ticket=ticket, version=command.version)
    now = ports.clock.monotonic()
    for version in plan.versions:
        without = {replica for replica, failed in attempts.failed if failed == version}
        replica = ports.routes.pick(plan.deployment, version, at=now, load=ports.replicas.waiting, without=without)
        if replica is not None:
            return replica, version
    return None


async def _wait_for_a_replica(command: Classify, attempts: _Attempts, give_up_at: float, ports: Ports) -> None:
    """Returns after a moment, with the slate clean; raises when there is nothing to wait for."""
    check_deadline(command.deadline, ports)
    last = attempts.last
    if last is not None and last.kind is Kind.OVERLOADED:
        raise last
    if ports.clock.monotonic() >= give_up_at:
        raise DeploymentNotReady(
            deployment=command.deployment, retry_after_seconds=ports.policy.retry_after_seconds
        ) from last
    await ports.clock.sleep(ports.policy.ready_poll_seconds)
    attempts.failed.clear()


async def _counted(command: Classify, replica: Replica, version: int, ports: Ports, *, began: float) -> Answer:
    """Asks, and remembers of the version how it went."""
    served = (command.tenant, command.deployment, version)
    asked = ports.clock.monotonic()
    try:
        answer = await _ask(command, replica, version, ports)
    except Refusal:
        ports.statistics.failed(served, seconds=ports.clock.monotonic() - asked)
        raise
    ports.statistics.answered(
        served,
        texts=len(command.texts),
        waited_seconds=asked - began,
        computed_seconds=ports.clock.monotonic() - asked,
        at=ports.clock.now(),
    )
    return answer


async def _ask(command: Classify, replica: Replica, version: int, ports: Ports) -> Answer:
    question = Question(
        deployment=command.deployment,
        version=version,
        request=command.request,
        texts=command.texts,
        traceparent=command.traceparent,
        deadline=command.deadline,
        with_embeddings=command.with_embeddings,
        whole=command.whole,
    )
    brought_by = ports.routes.claim_first(command.tenant, command.deployment, version)
    if brought_by is None:
        return await ports.replicas.ask(replica.id, question)
    try:
        return await _ask_first(question, replica, brought_by, ports)
    except BaseException:
        ports.routes.release_first(command.tenant, command.deployment, version)
        raise


async def _ask_first(question: Question, replica: Replica, brought_by: Mapping[str, str], ports: Ports) -> Answer:
    """Asks inside the trace of the rollout, so that its story ends with the first answer."""
    request_span = trace.get_current_span().get_span_context()
    attributes: dict[str, str | int | float | bool] = {
        "millrace.deployment": question.deployment,
        "millrace.version": question.version,
    }
    with telemetry.span(FIRST_REQUEST, parent=brought_by, attributes=attributes) as opened:
        if request_span.is_valid:
            opened.add_link(request_span)
        inside = telemetry.current_carrier().get("traceparent", question.traceparent)
        return await ports.replicas.ask(replica.id, replace(question, traceparent=inside))


def _mirror(command: Classify, answered_by: int, ports: Ports) -> None:
    version = ports.routes.mirror_of(command.tenant, command.deployment, answered_by, ticket=ports.generator.random())
    if version is None:
        return
    now = ports.clock.monotonic()
    replica = ports.routes.pick(command.deployment, version, at=now, load=ports.replicas.waiting)
    if replica is not None:
        question = Question(
            deployment=command.deployment,
            version=version,
            request=command.request,
            texts=command.texts,
            traceparent=command.traceparent,
            deadline=command.deadline,
            mirrored=True,
        )
        ports.mirrors.send(replica.id, question)


async def announce_dataset(event: DatasetReady, caller: Caller, ports: Ports) -> Accepted:
    """Publishes that a data set lies ready. Raises KeyReused or OutboxFull."""
    return await _accept(event, caller, ports)


async def send_feedback(event: FeedbackReceived, caller: Caller, ports: Ports) -> Accepted:
    """Publishes the right label of an answered request. Raises UnknownDeployment, KeyReused or OutboxFull."""
    if not ports.routes.knows(caller.tenant, event.deployment):
        raise _unknown(event.deployment, ports)
    return await _accept(event, caller, ports)


async def _accept(event: Event, caller: Caller, ports: Ports) -> Accepted:
    """Event and receipt commit together, so a repeated key gives the first answer even after a crash."""
    asked = once(caller.tenant, caller.idempotency_key, event.type_name().encode(), event.model_dump_json().encode())
    async with ports.store.transaction() as tx:
        if asked is not None and (earlier := await tx.answered_before(asked)) is not None:
            return Accepted(*earlier.split(" "))
        waiting = await tx.waiting_events()
        if waiting >= ports.policy.outbox_limit:
            raise OutboxFull(waiting=waiting, retry_after_seconds=ports.policy.outbox_retry_seconds)
        event_id = await tx.emit(event, tenant=caller.tenant)
        accepted = Accepted(event_id=event_id, trace_id=telemetry.current_trace_id())
        if asked is not None:
            await tx.remember_answer(asked, f"{accepted.event_id} {accepted.trace_id}")
        return accepted


def _unknown(deployment: str, ports: Ports) -> Refusal:
    """Before the table is read, not to know a deployment says nothing about it."""
    if ports.routes_read():
        return UnknownDeployment(deployment=deployment)
    return RoutesNotRead(retry_after_seconds=ports.policy.retry_after_seconds)


async def create_key(wanted: NewKey, caller: Caller, ports: Ports) -> tuple[KeyRecord, str]:
    """A key of the caller's own tenant, and its secret. Raises OtherTenant, and what the keyring refuses."""
    if wanted.tenant not in {"", caller.tenant}:
        raise OtherTenant(tenant=wanted.tenant[:63])
    made, secret = await ports.keys.create(replace(wanted, tenant=caller.tenant), by=caller.actor)
    logger.info("%s made the key %s (%s, %s)", caller.actor, made.id, made.role, made.tenant)
    return made, secret


async def list_keys(
    caller: Caller, ports: Ports, *, after: str, limit: int, with_revoked: bool
) -> tuple[list[KeyRecord], str]:
    """One page of the caller's tenant's keys, and the token of the next page, if there is one."""
    found = await ports.keys.list(tenant=caller.tenant, with_revoked=with_revoked)
    start = next((place + 1 for place, one in enumerate(found) if one.id == after), 0)
    page = found[start : start + limit]
    return page, page[-1].id if start + limit < len(found) else ""


async def revoke_key(key: str, caller: Caller, ports: Ports, *, even_if_last: bool) -> KeyRecord:
    """Takes a key of the caller's own tenant away. Raises UnknownKey, LastAdmin or ServiceKeyKept."""
    revoked = await ports.keys.revoke(key, tenant=caller.tenant, by=caller.actor, even_if_last=even_if_last)
    logger.info("%s revoked the key %s (%s, %s)", caller.actor, revoked.id, revoked.role, revoked.tenant)
    return revoked


async def follow_deployment(envelope: Envelope[DeploymentChanged], ports: Ports) -> None:
    """Takes the weights; a generation that is known already changes nothing."""
    ports.routes.deployment_changed(envelope.tenant, envelope.event, envelope.trace)


async def follow_replica(envelope: Envelope[ReplicaReported], ports: Ports) -> None:
    """Takes the report, keeps a line to each replica, and forgets those both silent and unreachable."""
    now = ports.clock.monotonic()
    ports.routes.replica_reported(envelope.event, at=now)
    for replica in ports.routes.replicas():
        if ports.routes.is_stale(replica, at=now) and ports.replicas.waiting(replica.id) is None:
            ports.routes.forget(replica.id)
    ports.replicas.keep(ports.routes.replicas())
