"""Models and their versions: registering, judging, naming, and reading them."""

from datetime import datetime

from services.contracts.events import DriftDetected, Event, ModelTrained, TrainingFailed
from services.kit.messaging.envelope import Envelope, StoredEventRef
from services.registry.domain import ModelState, VersionRef, decide_model, fold
from services.registry.domain.commands import (
    ModelCommand,
    OfferVersion,
    RecordDrift,
    RecordTrainingFailed,
    RegisterVersion,
    SetAlias,
)
from services.registry.domain.evolve import fold_deployments
from services.registry.domain.facts import ModelFact
from services.registry.domain.lineage import Lineage, lineage
from services.registry.domain.state import ModelView, Version, VersionStatus, champion, main_deployment, view
from services.registry.errors import UnknownModel
from services.registry.handlers.changes import NO_OPTIONS, WriteOptions, change_deployment, change_model
from services.registry.ports import Ports, Tx

# --- events of other services ------------------------------------------------------------------


async def register_version(envelope: Envelope[ModelTrained], ports: Ports) -> None:
    """Numbers and judges a trained model once its artifact has proved to be what was announced.

    A version that passed is offered to every deployment of the model.
    """
    trained, tenant = envelope.event, envelope.tenant
    await ports.artifacts.verify(trained.artifact)
    async with ports.store.transaction() as tx:
        if not await tx.mark_processed(envelope):
            return
        before = await tx.model(tenant, trained.model)
        serving = {one.name for one in await tx.deployments(tenant, model=trained.model)}
        deployments = [await tx.deployment(tenant, name) for name in sorted(serving | {trained.model})]
        command = RegisterVersion(trained, champion(trained.model, deployments))
        after = await change_model(tx, before, command, ports, cause=envelope)
        new = after.versions[-1]
        if after is before or not trained.deploy or new.status is not VersionStatus.PASSED:
            return
        ref, reason = VersionRef(model=trained.model, version=new.number), f"version {new.number} passed its gate"
        for deployment in deployments:
            offer = OfferVersion(deployment.name, ref, reason)
            await change_deployment(tx, deployment, offer, ports, cause=envelope)


async def record_training_failed(envelope: Envelope[TrainingFailed], ports: Ports) -> None:
    await _follow(envelope, envelope.event.model, RecordTrainingFailed(envelope.event), ports)


async def record_drift(envelope: Envelope[DriftDetected], ports: Ports) -> None:
    await _follow(envelope, envelope.event.model, RecordDrift(envelope.event), ports)


async def _follow(envelope: Envelope[Event], model: str, command: ModelCommand, ports: Ports) -> None:
    async with ports.store.transaction() as tx:
        if await tx.mark_processed(envelope):
            await change_model(tx, await tx.model(envelope.tenant, model), command, ports, cause=envelope)


# --- commands ----------------------------------------------------------------------------------


async def set_alias(
    model: str, command: SetAlias, tenant: str, ports: Ports, options: WriteOptions = NO_OPTIONS
) -> ModelView:
    if options.dry_run:
        async with ports.store.reading() as tx:
            state, now = await tx.model(tenant, model), ports.clock.now()
            decided = decide_model(state, command, at=now, rules=ports.rules)
            return await _view(tx, tenant, fold(state, [(fact, now) for fact in decided]))
    async with ports.store.transaction() as tx:
        state, key = await tx.model(tenant, model), options.idempotency_key
        if key is None or await tx.find_idempotent_response(key) is None:
            cause = StoredEventRef(id="", correlation_id="", tenant=tenant)
            state = await change_model(tx, state, command, ports, cause=cause)
        return await _view(tx, tenant, state)


# --- queries -----------------------------------------------------------------------------------


async def get_model(tenant: str, name: str, ports: Ports) -> ModelView:
    """Raises UnknownModel."""
    async with ports.store.reading() as tx:
        state = await tx.model(tenant, name)
        if not state.versions:
            raise UnknownModel(model=name)
        return await _view(tx, tenant, state)


async def list_models(tenant: str, ports: Ports, *, after: str, limit: int) -> list[ModelView]:
    async with ports.store.reading() as tx:
        return [await _view(tx, tenant, state) for state in await tx.models(tenant, after=after, limit=limit)]


async def list_versions(
    tenant: str, model: str, ports: Ports, *, status: VersionStatus | None, before: int, limit: int
) -> tuple[ModelView, list[Version]]:
    """The newest first, with numbers below `before`; 0 is no end. Raises UnknownModel."""
    matches = await get_model(tenant, model, ports)
    matching = (one for one in reversed(matches.state.versions) if status in (None, one.status))
    return matches, [one for one in matching if not before or one.number < before][:limit]


async def get_lineage(
    tenant: str, model: str, version: str, ports: Ports, *, as_of: datetime | None = None
) -> tuple[int, Lineage]:
    """The version's number and its graph, as the history knew it then. Raises UnknownModel, UnknownVersion."""
    async with ports.store.reading() as tx:
        rows = await tx.facts_about(tenant, model, as_of)
    own = [row for row in rows if isinstance(row[0].fact, ModelFact)]
    state = fold(ModelState(model=model), own)
    if not state.versions:
        raise UnknownModel(model=model)
    number = view(state, main_deployment(model, fold_deployments(rows))).resolve(version).number
    return number, lineage(model, number, rows)


async def _view(tx: Tx, tenant: str, state: ModelState) -> ModelView:
    return view(state, main_deployment(state.model, await tx.deployments(tenant, model=state.model)))
