"""Deployments and their rollouts: what people, replicas, the monitor and time change in them, and reading them."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from services.contracts.events import ReplicaReported, RolloutJudged, SloBreached
from services.contracts.names import qualified_name
from services.kit.messaging.envelope import Envelope, StoredEventRef
from services.kit.persistence.unit_of_work import Timer
from services.registry.domain import awaited, desired, elapsed, replicas_missing
from services.registry.domain.commands import (
    ApplyBreach,
    ApplyReport,
    ApplyVerdict,
    ApproveRollout,
    CreateDeployment,
    DeleteDeployment,
    DeploymentCommand,
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    RollBack,
    StartRollout,
    StopDeployment,
    UpdateDeployment,
)
from services.registry.domain.reports import of_tenant
from services.registry.domain.state import DeploymentView
from services.registry.errors import UnknownDeployment
from services.registry.handlers.changes import (
    NO_OPTIONS,
    WriteOptions,
    change_deployment,
    models_of,
    preview_deployment,
    require_generation,
)
from services.registry.ports import Ports, Tx

PersonsCommand = (
    CreateDeployment
    | UpdateDeployment
    | DeleteDeployment
    | ApproveRollout
    | PauseRollout
    | PromoteRollout
    | ResumeRollout
    | RollBack
    | StopDeployment
)

# --- commands ----------------------------------------------------------------------------------


async def execute(
    command: PersonsCommand, tenant: str, ports: Ports, options: WriteOptions = NO_OPTIONS
) -> DeploymentView:
    """Carries a person's command out. Returns the deployment after it.

    A dry run keeps nothing and uses up no key. A repetition with its key has no second effect and gets the present
    state. Raises PreconditionFailed, and what the domain refuses.
    """
    return await _execute(command.deployment, lambda _: command, tenant, ports, options)


async def start_rollout(
    command: StartRollout, version: str, tenant: str, ports: Ports, options: WriteOptions = NO_OPTIONS
) -> DeploymentView:
    """`version` may be a number or an alias; `command` carries the rest. As `execute` otherwise."""

    def resolve(view: DeploymentView) -> StartRollout:
        if view.state.spec is None and view.state.name not in view.models:
            raise UnknownDeployment(deployment=view.state.name)
        return replace(command, version=view.resolve(version))

    return await _execute(command.deployment, resolve, tenant, ports, options)


async def _execute(
    name: str,
    command: Callable[[DeploymentView], DeploymentCommand],
    tenant: str,
    ports: Ports,
    options: WriteOptions,
) -> DeploymentView:
    """The response by the key commits with the effect; a refused command leaves the key unused.

    What an alias names is looked up only when the command counts: a repetition's alias may have moved.
    """
    async with _transaction(options, ports) as tx:
        state, key = await tx.deployment(tenant, name), options.idempotency_key
        current = DeploymentView(state, await tx.find_models(tenant, models_of(state)))
        if not options.dry_run and key is not None and await tx.find_idempotent_response(key) is not None:
            return current
        require_generation(state, options.expected_generation)
        if options.dry_run:
            return await preview_deployment(tx, state, command(current), tenant, ports)
        cause = StoredEventRef(id="", correlation_id="", tenant=tenant)
        return await change_deployment(tx, state, command(current), ports, cause=cause)


def _transaction(options: WriteOptions, ports: Ports) -> AbstractAsyncContextManager[Tx]:
    return ports.store.reading() if options.dry_run else ports.store.transaction()


# --- events of other services ------------------------------------------------------------------


async def on_rollout_judged(envelope: Envelope[RolloutJudged], ports: Ports) -> None:
    async with ports.store.transaction() as tx:
        if await tx.mark_processed(envelope):
            state = await tx.deployment(envelope.tenant, envelope.event.deployment)
            await change_deployment(tx, state, ApplyVerdict(envelope.event), ports, cause=envelope)


async def on_slo_breached(envelope: Envelope[SloBreached], ports: Ports) -> None:
    async with ports.store.transaction() as tx:
        if await tx.mark_processed(envelope):
            state = await tx.deployment(envelope.tenant, envelope.event.deployment)
            await change_deployment(tx, state, ApplyBreach(envelope.event), ports, cause=envelope)


async def on_replica_reported(envelope: Envelope[ReplicaReported], ports: Ports) -> None:
    """A heartbeat: its sequence number shows a late or repeated one, so the inbox is spared."""
    report, tenant, now = envelope.event, envelope.tenant, ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.record_report(tenant, report, now):
            return
        await _republish_if_behind(tx, report, ports)
        live = await tx.live_replicas(tenant, now - ports.replica_timeout)
        names = sorted({(part.tenant, part.deployment) for part in report.versions})
        # All are locked before the first is changed: a change waits for the history's end, which others may hold.
        for state, owner in [(await tx.deployment(owner, name), owner) for owner, name in names]:
            reports = [of_tenant(other, owner) for other in live]
            missing = replicas_missing(state, reports, qualified_name=qualified_name(owner, state.name))
            command = ApplyReport(state.name, of_tenant(report, owner), missing)
            cause = StoredEventRef(envelope.id, envelope.correlation_id, owner)
            await change_deployment(tx, state, command, ports, cause=cause)


async def _republish_if_behind(tx: Tx, report: ReplicaReported, ports: Ports) -> None:
    """A replica that is still behind has missed an event: a broker that forgot, or a restart at a bad moment."""
    settled = ports.clock.now() - ports.settle
    behind: dict[str, list[str]] = {}
    for tenant, known in await tx.known_deployments():
        seen = report.generations.get(qualified_name(tenant, known.name), known.generation if known.deleted else 0)
        if seen < known.generation and known.changed_at < settled and not report.leaving:
            behind.setdefault(tenant, []).append(known.name)
    await _publish(tx, behind)


# --- time --------------------------------------------------------------------------------------


async def timer_due(timer: Timer, ports: Ports) -> None:
    """A bake time, a step's timeout or a drain is over."""
    async with ports.store.transaction() as tx:
        if not await tx.take_timer(timer):
            return
        state = await tx.deployment(timer.tenant, str(timer.payload["deployment"]))
        cause = timer.cause or StoredEventRef(id="", correlation_id="", tenant=timer.tenant)
        await change_deployment(tx, state, elapsed(timer.kind, dict(timer.payload)), ports, cause=cause)


async def republish_all(ports: Ports) -> None:
    """At start: a broker that keeps nothing over a restart gets again what ought to be served."""
    async with ports.store.transaction() as tx:
        every: dict[str, list[str]] = {}
        for tenant, known in await tx.known_deployments():
            every.setdefault(tenant, []).append(known.name)
        await _publish(tx, every)


async def _publish(tx: Tx, names: Mapping[str, Collection[str]]) -> None:
    """What each deployment wants served, by tenant and name."""
    for tenant, some in names.items():
        for state in await tx.find_deployments(tenant, some):
            await tx.emit(desired(state, await tx.find_models(tenant, models_of(state))), tenant=tenant)


# --- queries -----------------------------------------------------------------------------------


async def get_deployment(tenant: str, name: str, ports: Ports) -> DeploymentView:
    """Raises UnknownDeployment."""
    async with ports.store.reading() as tx:
        state = await tx.deployment(tenant, name)
        state.require_spec()
        live = await tx.live_replicas(tenant, ports.clock.now() - ports.replica_timeout)
        reports = [of_tenant(report, tenant) for report in live]
        waits_for = awaited(state, reports, qualified_name=qualified_name(tenant, name))
        return DeploymentView(state, await tx.find_models(tenant, models_of(state)), waits_for)


async def list_deployments(tenant: str, ports: Ports, *, after: str, limit: int) -> list[DeploymentView]:
    async with ports.store.reading() as tx:
        states = await tx.deployments(tenant, after=after, limit=limit)
        models = await tx.find_models(tenant, set().union(*(models_of(state) for state in states)))
        return [DeploymentView(state, models) for state in states]
