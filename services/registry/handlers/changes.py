"""The one way in which state changes: decide; then facts, tables, timers and events go into one transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.kit.core.idempotency import IdempotencyKey
from services.kit.messaging.envelope import EventRef
from services.kit.persistence.unit_of_work import Timer
from services.registry import telemetry
from services.registry.domain import (
    Decided,
    Deployment,
    ModelState,
    decide_deployment,
    decide_model,
    desired,
    fold,
    timers,
)
from services.registry.domain.commands import (
    CreateDeployment,
    DeploymentCommand,
    ModelCommand,
    OfferVersion,
    UpdateDeployment,
)
from services.registry.domain.state import DeploymentView
from services.registry.errors import PreconditionFailed
from services.registry.ports import Ports, Tx


@dataclass(frozen=True)
class WriteOptions:
    """How a change is made: once by a key, only in the generation that was seen, or only to see what it would do."""

    idempotency_key: IdempotencyKey | None = None
    expected_generation: int | None = None
    dry_run: bool = False


NO_OPTIONS: Final = WriteOptions()


async def change_model(
    tx: Tx, before: ModelState, command: ModelCommand, ports: Ports, *, cause: EventRef
) -> ModelState:
    """Returns the state after it."""
    now = ports.clock.now()
    decided = decide_model(before, command, at=now, rules=ports.rules)
    if not decided:
        return before
    after = fold(before, [(fact, now) for fact in decided])
    await _record(tx, decided, now, cause)
    for one in decided:
        telemetry.count_version(cause.tenant, one.fact.kind, before.model)
    await tx.save_model(cause.tenant, after)
    return after


async def change_deployment(
    tx: Tx, before: Deployment, command: DeploymentCommand, ports: Ports, *, cause: EventRef
) -> DeploymentView:
    """Returns the state after it."""
    now, tenant = ports.clock.now(), cause.tenant
    models = await tx.find_models(tenant, models_of(before, command))
    decided = decide_deployment(before, command, models=models, at=now, rules=ports.rules)
    after = fold(before, [(fact, now) for fact in decided])
    view = DeploymentView(after, models)
    if not decided:
        return view
    await _record(tx, decided, now, cause)
    for one in decided:
        telemetry.count_rollout(tenant, one.fact.kind, before.name)
    await tx.save_deployment(tenant, after)
    if after.generation > before.generation:
        await tx.emit(desired(after, models), cause=cause)
    await _set_timers(tx, before, after, cause)
    return view


async def preview_deployment(
    tx: Tx, before: Deployment, command: DeploymentCommand, tenant: str, ports: Ports
) -> DeploymentView:
    """The state as it would be; nothing is kept."""
    now = ports.clock.now()
    models = await tx.find_models(tenant, models_of(before, command))
    decided = decide_deployment(before, command, models=models, at=now, rules=ports.rules)
    return DeploymentView(fold(before, [(fact, now) for fact in decided]), models)


def models_of(deployment: Deployment, command: DeploymentCommand | None = None) -> set[str]:
    """The models that a decision about the deployment, and what follows from it, may refer to."""
    named = {deployment.name, *deployment.models}
    match command:
        case CreateDeployment():
            named.add(command.spec.model)
        case UpdateDeployment() if command.changes.model is not None:
            named.add(command.changes.model)
        case OfferVersion():
            named.add(command.version.model)
    return named


def require_generation(deployment: Deployment, expected: int | None) -> None:
    """Raises PreconditionFailed. A deployment that is not there is at generation 0."""
    current = deployment.generation if deployment.spec is not None else 0
    if expected is not None and expected != current:
        raise PreconditionFailed(deployment=deployment.name, current=current, expected=expected)


async def _record(tx: Tx, decided: list[Decided], now: datetime, cause: EventRef) -> None:
    for one in decided:
        await tx.record(cause, one, now)


async def _set_timers(tx: Tx, before: Deployment, after: Deployment, cause: EventRef) -> None:
    old, new = timers(before), timers(after)
    for key in sorted(old.keys() - new.keys()):
        await tx.cancel_timer(f"{cause.tenant}/{key}")
    for key in sorted(new.keys() - old.keys()):
        spec = new[key]
        timer = Timer(f"{cause.tenant}/{key}", spec.kind, spec.due, spec.payload, tenant=cause.tenant, cause=cause)
        await tx.schedule(timer)
