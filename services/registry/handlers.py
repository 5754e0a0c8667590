"""The registry's use cases. Each loads one model, decides, and keeps the facts, the tables and the news together."""

from collections.abc import Sequence
from datetime import datetime

from services.contracts.events import (
    DriftDetected,
    Event,
    ModelTrained,
    ReplicaReported,
    RolloutJudged,
    SloBreached,
    TrainingFailed,
)
from services.kit.envelope import Cause, Envelope, Origin
from services.kit.work import Timer
from services.registry import telemetry
from services.registry.domain import ModelState, changes, decide, desired, elapsed, evolve, timers
from services.registry.domain.commands import (
    Command,
    PauseRollout,
    PromoteRollout,
    RecordDrift,
    RecordTrainingFailed,
    RegisterVersion,
    ResumeRollout,
    RollBack,
    SetAlias,
    StartRollout,
    StopDeployment,
    TakeBreach,
    TakeReport,
    TakeVerdict,
)
from services.registry.domain.state import Version
from services.registry.errors import UnknownDeployment, UnknownModel
from services.registry.ports import HistoryLine, KnownDeployment, Ports, Tx

Move = StartRollout | PauseRollout | ResumeRollout | PromoteRollout | RollBack | StopDeployment


# --- what other services tell ------------------------------------------------------------------


async def register_version(envelope: Envelope[ModelTrained], ports: Ports) -> None:
    """Numbers and judges a trained model once its artifact has proved to be what was announced."""
    await ports.artifacts.verify(envelope.event.artifact)
    await _follow(envelope, envelope.event.model, RegisterVersion(envelope.event), ports)


async def record_training_failed(envelope: Envelope[TrainingFailed], ports: Ports) -> None:
    await _follow(envelope, envelope.event.model, RecordTrainingFailed(envelope.event), ports)


async def record_drift(envelope: Envelope[DriftDetected], ports: Ports) -> None:
    await _follow(envelope, envelope.event.model, RecordDrift(envelope.event), ports)


async def take_verdict(envelope: Envelope[RolloutJudged], ports: Ports) -> None:
    await _follow_deployment(envelope, envelope.event.deployment, TakeVerdict(envelope.event), ports)


async def take_breach(envelope: Envelope[SloBreached], ports: Ports) -> None:
    await _follow_deployment(envelope, envelope.event.deployment, TakeBreach(envelope.event), ports)


async def take_report(envelope: Envelope[ReplicaReported], ports: Ports) -> None:
    """A heartbeat: its sequence number tells a late or repeated one, so the inbox is spared."""
    report, tenant, now = envelope.event, envelope.tenant, ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.hear(tenant, report, now):
            return
        known = await tx.deployments(tenant)
        await _tell_again(tx, tenant, report, known, now - ports.settle)
        live = await tx.live_replicas(tenant, now - ports.replica_timeout)
        for model in sorted({part.model for part in report.versions}):
            state = await tx.model(tenant, model)
            await _change(tx, state, TakeReport(report, _not_ready(state, live)), ports, cause=envelope)


def _not_ready(state: ModelState, live: Sequence[ReplicaReported]) -> frozenset[str]:
    """The live replicas that lack the version which a rollout of this model waits for."""
    wanted = {(name, d.active_rollout.version) for name, d in state.deployments.items() if d.active_rollout}
    ready = {r.replica: {(v.deployment, v.version) for v in r.versions if v.state == "ready"} for r in live}
    return frozenset(name for name, has in ready.items() if not wanted <= has)


async def _tell_again(
    tx: Tx, tenant: str, report: ReplicaReported, known: list[KnownDeployment], settled: datetime
) -> None:
    """A replica that is still behind has missed the news: a broker that forgot, or a restart at a bad moment."""
    for deployment in known:
        behind = report.generations.get(deployment.name, 0) < deployment.generation
        if behind and deployment.changed_at < settled and not report.leaving:
            state = await tx.model(tenant, deployment.model)
            await tx.emit(desired(state, deployment.name), tenant=tenant)


# --- what people ask ---------------------------------------------------------------------------


async def move_rollout(move: Move, tenant: str, ports: Ports, *, dry_run: bool = False) -> ModelState:
    """Starts, pauses, resumes, promotes, rolls back or stops. Returns the model after it; a dry run keeps nothing."""
    async with ports.store.reading() if dry_run else ports.store.transaction() as tx:
        model = await _model_of(tx, tenant, move.deployment)
        state = await tx.model(tenant, model)
        if not state.versions:
            raise UnknownDeployment(deployment=move.deployment)
        if dry_run:
            now = ports.clock.now()
            for decided in decide(state, move, at=now, rules=ports.rules):
                state = evolve(state, decided, now)
            return state
        return await _change(tx, state, move, ports, cause=Origin(id="", story="", tenant=tenant))


async def start_rollout(
    deployment: str, version: str, command: StartRollout, tenant: str, ports: Ports, *, dry_run: bool
) -> ModelState:
    """`version` may be a number or an alias; `command` carries the rest."""
    async with ports.store.reading() as tx:
        state = await _existing(tx, tenant, await _model_of(tx, tenant, deployment))
    resolved = StartRollout(
        deployment=deployment,
        version=state.resolve(version).number,
        actor=command.actor,
        reason=command.reason,
        skip_gate=command.skip_gate,
        policy=command.policy,
    )
    return await move_rollout(resolved, tenant, ports, dry_run=dry_run)


async def set_alias(model: str, command: SetAlias, tenant: str, ports: Ports) -> ModelState:
    async with ports.store.transaction() as tx:
        state = await tx.model(tenant, model)
        return await _change(tx, state, command, ports, cause=Origin(id="", story="", tenant=tenant))


async def get_model(tenant: str, name: str, ports: Ports) -> ModelState:
    async with ports.store.reading() as tx:
        return await _existing(tx, tenant, name)


async def get_version(tenant: str, model: str, version: str, ports: Ports) -> Version:
    return (await get_model(tenant, model, ports)).resolve(version)


async def list_models(tenant: str, ports: Ports, *, after: str, limit: int) -> list[ModelState]:
    async with ports.store.reading() as tx:
        return await tx.models(tenant, after=after, limit=limit)


async def get_deployment(tenant: str, name: str, ports: Ports) -> ModelState:
    """The model that it serves. Raises UnknownDeployment."""
    async with ports.store.reading() as tx:
        known = await tx.deployment(tenant, name)
        if known is None:
            raise UnknownDeployment(deployment=name)
        return await _existing(tx, tenant, known.model)


async def list_deployments(
    tenant: str, ports: Ports, *, after: str, limit: int
) -> list[tuple[KnownDeployment, ModelState]]:
    async with ports.store.reading() as tx:
        known = await tx.deployments(tenant, after=after, limit=limit)
        return [(deployment, await _existing(tx, tenant, deployment.model)) for deployment in known]


async def list_history(tenant: str, ports: Ports, *, stream: str, after: int, limit: int) -> list[HistoryLine]:
    async with ports.store.reading() as tx:
        return await tx.history(tenant, stream=stream, after=after, limit=limit)


# --- what time tells ---------------------------------------------------------------------------


async def timer_due(timer: Timer, ports: Ports) -> None:
    """A bake time, a step's timeout or a drain is over."""
    async with ports.store.transaction() as tx:
        if not await tx.take_timer(timer):
            return
        state = await tx.model(timer.tenant, str(timer.payload["model"]))
        command = elapsed(timer.kind, dict(timer.payload))
        await _change(tx, state, command, ports, cause=timer.cause or Origin(id="", story="", tenant=timer.tenant))


async def tell_all(ports: Ports) -> None:
    """At start: a broker that keeps nothing over a restart hears again what ought to be served."""
    async with ports.store.transaction() as tx:
        for tenant, deployment in await tx.all_deployments():
            await tx.emit(desired(await tx.model(tenant, deployment.model), deployment.name), tenant=tenant)


# --- the one way in which state changes --------------------------------------------------------


async def _follow(envelope: Envelope[Event], model: str, command: Command, ports: Ports) -> None:
    async with ports.store.transaction() as tx:
        if await tx.first_sight(envelope):
            state = await tx.model(envelope.tenant, model)
            await _change(tx, state, command, ports, cause=envelope)


async def _follow_deployment(envelope: Envelope[Event], name: str, command: Command, ports: Ports) -> None:
    async with ports.store.transaction() as tx:
        known = await tx.deployment(envelope.tenant, name)
        if known is not None and await tx.first_sight(envelope):
            state = await tx.model(envelope.tenant, known.model)
            await _change(tx, state, command, ports, cause=envelope)


async def _change(tx: Tx, before: ModelState, command: Command, ports: Ports, *, cause: Cause) -> ModelState:
    """Decides; then facts, tables, timers and news go into the one transaction. Returns the state after it."""
    now, tenant = ports.clock.now(), cause.tenant
    after = before
    for decided in decide(before, command, at=now, rules=ports.rules):
        after = evolve(after, decided, now)
        await tx.record(cause, decided, now)
        telemetry.count(decided.fact)
    if after is before:
        return before
    await tx.keep(tenant, after)
    for change in changes(before, after):
        await tx.emit(change, cause=cause)
    await _set_timers(tx, before, after, cause)
    return after


async def _set_timers(tx: Tx, before: ModelState, after: ModelState, cause: Cause) -> None:
    old, new = timers(before), timers(after)
    for key in sorted(old.keys() - new.keys()):
        await tx.cancel_timer(f"{cause.tenant}/{key}")
    for key in sorted(new.keys() - old.keys()):
        spec = new[key]
        timer = Timer(f"{cause.tenant}/{key}", spec.kind, spec.due, spec.payload, tenant=cause.tenant, cause=cause)
        await tx.schedule(timer)


async def _model_of(tx: Tx, tenant: str, deployment: str) -> str:
    """A deployment that is not there yet can only be the one named as its model."""
    known = await tx.deployment(tenant, deployment)
    return known.model if known else deployment


async def _existing(tx: Tx, tenant: str, name: str) -> ModelState:
    state = await tx.model(tenant, name)
    if not state.versions:
        raise UnknownModel(model=name)
    return state
