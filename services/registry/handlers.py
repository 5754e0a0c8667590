"""The registry's use cases. Each loads one model, decides, and keeps the facts, the tables and the news together."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from services.contracts.events import (
    DriftDetected,
    Event,
    ModelTrained,
    ReplicaReported,
    RolloutJudged,
    SloBreached,
    TrainingFailed,
)
from services.contracts.names import place_of
from services.kit.core.hash_chain import HistoryFilter
from services.kit.core.idempotency import IdempotencyKey
from services.kit.messaging.envelope import Envelope, EventRef, StoredEventRef
from services.kit.persistence.unit_of_work import Timer
from services.registry import telemetry
from services.registry.domain import ModelState, changes, decide, desired, elapsed, evolve, fold, timers
from services.registry.domain.commands import (
    ApplyBreach,
    ApplyReport,
    ApplyVerdict,
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
)
from services.registry.domain.facts import AnyFact, DeploymentFact
from services.registry.domain.lineage import Lineage, lineage
from services.registry.domain.reports import of_tenant
from services.registry.domain.state import Version, VersionStatus
from services.registry.errors import PreconditionFailed, UnknownDeployment, UnknownModel
from services.registry.ports import HistoryEntry, KnownDeployment, Ports, Tx

RolloutCommand = StartRollout | PauseRollout | ResumeRollout | PromoteRollout | RollBack | StopDeployment


# --- what other services tell ------------------------------------------------------------------


async def register_version(envelope: Envelope[ModelTrained], ports: Ports) -> None:
    """Numbers and judges a trained model once its artifact has proved to be what was announced."""
    await ports.artifacts.verify(envelope.event.artifact)
    await _follow(envelope, envelope.event.model, RegisterVersion(envelope.event), ports)


async def record_training_failed(envelope: Envelope[TrainingFailed], ports: Ports) -> None:
    await _follow(envelope, envelope.event.model, RecordTrainingFailed(envelope.event), ports)


async def record_drift(envelope: Envelope[DriftDetected], ports: Ports) -> None:
    await _follow(envelope, envelope.event.model, RecordDrift(envelope.event), ports)


async def on_rollout_judged(envelope: Envelope[RolloutJudged], ports: Ports) -> None:
    await _follow_deployment(envelope, envelope.event.deployment, ApplyVerdict(envelope.event), ports)


async def on_slo_breached(envelope: Envelope[SloBreached], ports: Ports) -> None:
    await _follow_deployment(envelope, envelope.event.deployment, ApplyBreach(envelope.event), ports)


async def on_replica_reported(envelope: Envelope[ReplicaReported], ports: Ports) -> None:
    """A heartbeat: its sequence number tells a late or repeated one, so the inbox is spared."""
    report, tenant, now = envelope.event, envelope.tenant, ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.record_report(tenant, report, now):
            return
        await _republish_if_behind(tx, report, await tx.all_deployments(), now - ports.settle)
        live = await tx.live_replicas(tenant, now - ports.replica_timeout)
        for owner in sorted({part.tenant for part in report.versions}):
            theirs, others = of_tenant(report, owner), [of_tenant(other, owner) for other in live]
            cause = StoredEventRef(envelope.id, envelope.story, owner)
            for model in sorted({part.model for part in theirs.versions}):
                state = await tx.model(owner, model)
                await _change(tx, state, ApplyReport(theirs, _not_ready(state, others)), ports, cause=cause)


def _not_ready(state: ModelState, live: Sequence[ReplicaReported]) -> frozenset[str]:
    """The live replicas that lack the version which a rollout of this model waits for."""
    wanted = {(name, d.active_rollout.version) for name, d in state.deployments.items() if d.active_rollout}
    ready = {r.replica: {(v.deployment, v.version) for v in r.versions if v.state == "ready"} for r in live}
    return frozenset(name for name, has in ready.items() if not wanted <= has)


async def _republish_if_behind(
    tx: Tx, report: ReplicaReported, known: list[tuple[str, KnownDeployment]], settled: datetime
) -> None:
    """A replica that is still behind has missed the news: a broker that forgot, or a restart at a bad moment."""
    for tenant, deployment in known:
        behind = report.generations.get(place_of(tenant, deployment.name), 0) < deployment.generation
        if behind and deployment.changed_at < settled and not report.leaving:
            state = await tx.model(tenant, deployment.model)
            await tx.emit(desired(state, deployment.name), tenant=tenant)


# --- what people ask ---------------------------------------------------------------------------


@dataclass(frozen=True)
class WriteOptions:
    """How somebody asks for a change: once by a key, only in the generation that was seen, or only to see."""

    idempotency_key: IdempotencyKey | None = None
    expected_generation: int | None = None
    dry_run: bool = False


NO_OPTIONS: Final = WriteOptions()


async def move_rollout(
    command: RolloutCommand, tenant: str, ports: Ports, options: WriteOptions = NO_OPTIONS
) -> ModelState:
    """Starts, pauses, resumes, promotes, rolls back or stops. Returns the model after it.

    A dry run keeps nothing and uses up no key. A repetition with its key has no second effect and gets the present
    state. Raises PreconditionFailed, and what the domain refuses.
    """
    async with _asked(options, ports) as tx:
        state = await tx.model(tenant, await _model_of(tx, tenant, command.deployment))
        if not state.versions:
            raise UnknownDeployment(deployment=command.deployment)
        return await _execute(tx, state, lambda: command, command.deployment, tenant, ports, options)


async def start_rollout(
    command: StartRollout, version: str, tenant: str, ports: Ports, options: WriteOptions = NO_OPTIONS
) -> ModelState:
    """`version` may be a number or an alias; `command` carries the rest. As `move_rollout` otherwise."""
    async with _asked(options, ports) as tx:
        state = await _existing(tx, tenant, await _model_of(tx, tenant, command.deployment))
        resolve = partial(_resolved, command, version, state)
        return await _execute(tx, state, resolve, command.deployment, tenant, ports, options)


async def set_alias(
    model: str, command: SetAlias, tenant: str, ports: Ports, options: WriteOptions = NO_OPTIONS
) -> ModelState:
    async with _asked(options, ports) as tx:
        state = await tx.model(tenant, model)
        return await _execute(tx, state, lambda: command, "", tenant, ports, options)


def _asked(options: WriteOptions, ports: Ports) -> AbstractAsyncContextManager[Tx]:
    return ports.store.reading() if options.dry_run else ports.store.transaction()


def _resolved(command: StartRollout, version: str, state: ModelState) -> StartRollout:
    """What an alias names is looked up only when the call counts: a repetition's alias may have moved."""
    return replace(command, version=state.resolve(version).number)


async def _execute(
    tx: Tx,
    state: ModelState,
    command: Callable[[], Command],
    deployment: str,
    tenant: str,
    ports: Ports,
    options: WriteOptions,
) -> ModelState:
    """The receipt of the key commits with the effect; a refusal leaves the key unused."""
    if options.dry_run:
        _require_generation(state, deployment, options.expected_generation)
        now = ports.clock.now()
        for decided in decide(state, command(), at=now, rules=ports.rules):
            state = evolve(state, decided, now)
        return state
    if options.idempotency_key is not None and await tx.find_idempotent_response(options.idempotency_key) is not None:
        return state
    _require_generation(state, deployment, options.expected_generation)
    return await _change(tx, state, command(), ports, cause=StoredEventRef(id="", story="", tenant=tenant))


def _require_generation(state: ModelState, name: str, expected: int | None) -> None:
    """Raises PreconditionFailed. A deployment that is not there is at generation 0."""
    present = state.deployments[name].generation if name in state.deployments else 0
    if expected is not None and expected != present:
        raise PreconditionFailed(deployment=name, present=present, expected=expected)


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


async def list_versions(
    tenant: str, model: str, ports: Ports, *, status: VersionStatus | None, before: int, limit: int
) -> tuple[ModelState, list[Version]]:
    """The newest first, with numbers below `before`; 0 is no end. Raises UnknownModel."""
    state = await get_model(tenant, model, ports)
    wanted = (one for one in reversed(state.versions) if status in (None, one.status))
    return state, [one for one in wanted if not before or one.number < before][:limit]


async def get_lineage(
    tenant: str, model: str, version: str, ports: Ports, *, as_of: datetime | None = None
) -> tuple[int, Lineage]:
    """The version's number and its graph, as the history knew it then. Raises UnknownModel, UnknownVersion."""
    async with ports.store.reading() as tx:
        rows = await tx.story(tenant, model, as_of)
    state = fold(model, rows)
    if not state.versions:
        raise UnknownModel(model=model)
    number = state.resolve(version).number
    return number, lineage(model, number, rows)


async def list_history(
    tenant: str, ports: Ports, chosen: HistoryFilter, *, after: int = 0, before: int = 0, limit: int
) -> list[HistoryEntry]:
    async with ports.store.reading() as tx:
        return await tx.history(tenant, chosen, after=after, before=before, limit=limit)


async def list_chain(tenant: str, ports: Ports, *, after: int, limit: int) -> list[HistoryEntry]:
    """Every number of the chain that all tenants share, so that none can be missing unseen."""
    async with ports.store.reading() as tx:
        return await tx.chain(tenant, after=after, limit=limit)


async def history_head(ports: Ports) -> tuple[int, str]:
    """Number and hash of the last fact; 0 and the genesis hash before the first."""
    async with ports.store.reading() as tx:
        return await tx.history_head()


# --- what time tells ---------------------------------------------------------------------------


async def timer_due(timer: Timer, ports: Ports) -> None:
    """A bake time, a step's timeout or a drain is over."""
    async with ports.store.transaction() as tx:
        if not await tx.take_timer(timer):
            return
        state = await tx.model(timer.tenant, str(timer.payload["model"]))
        command = elapsed(timer.kind, dict(timer.payload))
        await _change(
            tx, state, command, ports, cause=timer.cause or StoredEventRef(id="", story="", tenant=timer.tenant)
        )


async def republish_all(ports: Ports) -> None:
    """At start: a broker that keeps nothing over a restart hears again what ought to be served."""
    async with ports.store.transaction() as tx:
        for tenant, deployment in await tx.all_deployments():
            await tx.emit(desired(await tx.model(tenant, deployment.model), deployment.name), tenant=tenant)


# --- the one way in which state changes --------------------------------------------------------


async def _follow(envelope: Envelope[Event], model: str, command: Command, ports: Ports) -> None:
    async with ports.store.transaction() as tx:
        if await tx.mark_processed(envelope):
            state = await tx.model(envelope.tenant, model)
            await _change(tx, state, command, ports, cause=envelope)


async def _follow_deployment(envelope: Envelope[Event], name: str, command: Command, ports: Ports) -> None:
    async with ports.store.transaction() as tx:
        known = await tx.deployment(envelope.tenant, name)
        if known is not None and await tx.mark_processed(envelope):
            state = await tx.model(envelope.tenant, known.model)
            await _change(tx, state, command, ports, cause=envelope)


async def _change(tx: Tx, before: ModelState, command: Command, ports: Ports, *, cause: EventRef) -> ModelState:
    """Decides; then facts, tables, timers and news go into the one transaction. Returns the state after it."""
    now, tenant = ports.clock.now(), cause.tenant
    after = before
    for decided in decide(before, command, at=now, rules=ports.rules):
        after = evolve(after, decided, now)
        await tx.record(cause, decided, now)
        _count(tenant, decided.fact)
    if after is before:
        return before
    await tx.keep(tenant, after)
    for change in changes(before, after):
        await tx.emit(change, cause=cause)
    await _set_timers(tx, before, after, cause)
    return after


def _count(tenant: str, fact: AnyFact) -> None:
    telemetry.count_version(tenant, fact.kind, fact.model)
    if isinstance(fact, DeploymentFact):
        telemetry.count_rollout(tenant, fact.kind, fact.deployment)


async def _set_timers(tx: Tx, before: ModelState, after: ModelState, cause: EventRef) -> None:
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
