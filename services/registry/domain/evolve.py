"""`evolve(state, decided, at) -> state`: what each fact changes. Pure, and the only way a state comes about."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import singledispatch
from typing import Any, TypeVar

from services.contracts.events import Role
from services.registry.domain import facts
from services.registry.domain.facts import AnyFact, Decided, DeploymentFact
from services.registry.domain.spec import DeploymentSpec, VersionRef
from services.registry.domain.state import (
    ROLLOUT_NEXT,
    VERSION_NEXT,
    Aggregate,
    Deployment,
    ModelState,
    Rollout,
    RolloutState,
    Served,
    Version,
    VersionStatus,
)
from services.registry.errors import IllegalMove


@dataclass(frozen=True)
class _Row:
    """What the history's row says beside the fact."""

    actor: str
    reason: str
    at: datetime


A = TypeVar("A", bound=Aggregate)


def evolve(state: A, decided: Decided, at: datetime) -> A:
    """The state after the fact. Raises IllegalMove when a lifecycle does not allow it; never for a written history."""
    after: A = _apply(decided.fact, state, _Row(decided.actor, decided.reason, at))
    return after


def fold(state: A, rows: Iterable[tuple[Decided, datetime]]) -> A:
    """The state after all rows of its stream, in order; stop early to see it at any earlier time."""
    for decided, at in rows:
        state = evolve(state, decided, at)
    return state


def fold_deployments(rows: Iterable[tuple[Decided, datetime]]) -> list[Deployment]:
    """Each deployment that has facts among the rows, which are in order."""
    matches: dict[str, Deployment] = {}
    for decided, at in rows:
        if isinstance(decided.fact, DeploymentFact):
            name = decided.fact.deployment
            matches[name] = evolve(matches.get(name, Deployment(name=name)), decided, at)
    return list(matches.values())


@singledispatch
def _apply(fact: AnyFact, state: Any, row: _Row) -> Any:
    raise TypeError(f"no rule for {type(fact).__name__}")


# --- versions and aliases ----------------------------------------------------------------------


@_apply.register
def _(fact: facts.RunFailed, state: ModelState, row: _Row) -> ModelState:
    return state.model_copy(update={"failed_runs": (*state.failed_runs, fact.run)})


@_apply.register
def _(fact: facts.VersionRegistered, state: ModelState, row: _Row) -> ModelState:
    new = Version(number=fact.version, precision=fact.precision, trained=fact.trained, registered_at=row.at)
    return state.model_copy(update={"versions": (*state.versions, new)})


@_apply.register
def _(fact: facts.VersionPassed, state: ModelState, row: _Row) -> ModelState:
    return _judged(state, fact.version, VersionStatus.PASSED, fact.gate)


@_apply.register
def _(fact: facts.VersionRefused, state: ModelState, row: _Row) -> ModelState:
    return _judged(state, fact.version, VersionStatus.REFUSED, fact.gate)


@_apply.register
def _(fact: facts.VersionDrifted, state: ModelState, row: _Row) -> ModelState:
    return _with_version(state, fact.version, drifted_at=row.at)


@_apply.register
def _(fact: facts.AliasMoved, state: ModelState, row: _Row) -> ModelState:
    aliases = {alias: version for alias, version in state.aliases.items() if alias != fact.alias}
    if fact.after is not None:
        aliases[fact.alias] = fact.after
    return state.model_copy(update={"aliases": aliases})


def _judged(state: ModelState, number: int, status: VersionStatus, gate: facts.Gate) -> ModelState:
    current = state.version(number).status
    if status not in VERSION_NEXT[current]:
        raise IllegalMove(what=f"Version {number}", state=current, move=status)
    return _with_version(state, number, status=status, gate=gate)


def _with_version(state: ModelState, number: int, **changes: object) -> ModelState:
    new = state.version(number).model_copy(update=changes)
    return state.model_copy(update={"versions": (*state.versions[: number - 1], new, *state.versions[number:])})


# --- deployments and rollouts ------------------------------------------------------------------


@_apply.register
def _(fact: facts.DeploymentCreated, state: Deployment, row: _Row) -> Deployment:
    return _specified(state, row, fact.spec, stopped=False)


@_apply.register
def _(fact: facts.DeploymentUpdated, state: Deployment, row: _Row) -> Deployment:
    return _specified(state, row, fact.spec)


@_apply.register
def _(fact: facts.DeploymentDeleted, state: Deployment, row: _Row) -> Deployment:
    """The name starts afresh, but for what must never be used twice: generations, rollouts' ids."""
    return _changed(state, row, spec=None, targets=(), before=(), rollout=None, rolled_out=(), stopped=False)


def _specified(state: Deployment, row: _Row, spec: DeploymentSpec, **changes: object) -> Deployment:
    models = state.models if spec.model in state.models else (*state.models, spec.model)
    return _changed(state, row, spec=spec, models=models, **changes)


@_apply.register
def _(fact: facts.RolloutStarted, state: Deployment, row: _Row) -> Deployment:
    generation = state.generation + 1
    rollout = Rollout(
        id=fact.rollout,
        version=fact.ref,
        state=RolloutState.PENDING if fact.pending else RolloutState.LOADING,
        policy=fact.policy,
        entered=generation,
        entered_at=row.at,
        gate_skipped=fact.gate_skipped,
        returning=fact.returning,
        generation=generation,
        actor=row.actor,
        reason=row.reason,
        started_at=row.at,
        changed_at=row.at,
    )
    targets = state.targets if fact.pending else _placed(state, {fact.ref: (Role.CANARY, 0)}, row)
    counted = {"rollouts": state.rollouts + 1, "rolled_out": (*state.rolled_out, fact.ref), "stopped": False}
    return _changed(state, row, targets=targets, rollout=rollout, **counted)


@_apply.register
def _(fact: facts.RolloutApproved, state: Deployment, row: _Row) -> Deployment:
    rollout = _moved(state, RolloutState.LOADING, row, generation=state.generation + 1)
    return _changed(state, row, targets=_placed(state, {fact.ref: (Role.CANARY, 0)}, row), rollout=rollout)


@_apply.register
def _(fact: facts.RolloutLoaded, state: Deployment, row: _Row) -> Deployment:
    return _step(state, fact, row, step=0)


@_apply.register
def _(fact: facts.RolloutAdvanced, state: Deployment, row: _Row) -> Deployment:
    return _step(state, fact, row, step=fact.step)


@_apply.register
def _(fact: facts.VerdictRecorded, state: Deployment, row: _Row) -> Deployment:
    return _noted(state, fact, verdict=fact.verdict, evidence=fact.evidence)


@_apply.register
def _(fact: facts.StepBaked, state: Deployment, row: _Row) -> Deployment:
    return _noted(state, fact, baked=True)


@_apply.register
def _(fact: facts.RolloutPaused, state: Deployment, row: _Row) -> Deployment:
    return _changed(state, row, rollout=_moved(state, RolloutState.PAUSED, row))


@_apply.register
def _(fact: facts.RolloutResumed, state: Deployment, row: _Row) -> Deployment:
    rollout = _moved(state, RolloutState.CANARY, row, entered=state.generation + 1, entered_at=row.at)
    return _changed(state, row, rollout=rollout)


@_apply.register
def _(fact: facts.RolloutPromoted, state: Deployment, row: _Row) -> Deployment:
    rollout = _moved(state, RolloutState.PROMOTED, row, evidence=fact.evidence)
    roles = {fact.ref: (Role.PRIMARY, 100)}
    back_from_a_stop = state.version is None and state.before[-1:] == (fact.ref,)
    before = state.before[:-1] if rollout.returning or back_from_a_stop else state.before
    if state.version is not None:
        roles[state.version] = (Role.DRAINING, 0)
        if not rollout.returning:
            before = (*before, state.version)
    spec = _following(state, fact.ref) if rollout.returning else state.spec
    return _changed(state, row, spec=spec, targets=_placed(state, roles, row), before=before, rollout=rollout)


@_apply.register
def _(fact: facts.RolloutRolledBack, state: Deployment, row: _Row) -> Deployment:
    loaded = state.require_rollout().state not in (RolloutState.PENDING, RolloutState.LOADING)
    rollout = _moved(state, RolloutState.ROLLED_BACK, row, evidence=fact.evidence)
    roles = {state.version: (Role.PRIMARY, 100)} if state.version is not None else {}
    if loaded:
        roles[fact.ref] = (Role.DRAINING, 0)
    targets = _placed(state, roles, row, without=None if loaded else fact.ref)
    return _changed(state, row, targets=targets, rollout=rollout)


@_apply.register
def _(fact: facts.DeploymentRolledBack, state: Deployment, row: _Row) -> Deployment:
    roles = {fact.after: (Role.PRIMARY, 100), fact.before: (Role.DRAINING, 0)}
    targets, spec = _placed(state, roles, row), _following(state, fact.after)
    return _changed(state, row, spec=spec, targets=targets, before=state.before[:-1])


def _following(state: Deployment, version: VersionRef) -> DeploymentSpec:
    """A way back to a version of another model takes the move to this one back, too."""
    return state.require_spec().model_copy(update={"model": version.model})


@_apply.register
def _(fact: facts.DeploymentStopped, state: Deployment, row: _Row) -> Deployment:
    roles = {target.version: (Role.DRAINING, 0) for target in state.targets}
    before = state.before if fact.version is None else (*state.before, fact.version)
    return _changed(state, row, targets=_placed(state, roles, row), before=before, stopped=True)


@_apply.register
def _(fact: facts.TargetDropped, state: Deployment, row: _Row) -> Deployment:
    return _changed(state, row, targets=_placed(state, {}, row, without=fact.version))


def _step(state: Deployment, fact: facts.RolloutLoaded | facts.RolloutAdvanced, row: _Row, step: int) -> Deployment:
    """The canary gets the step's weight and the primary the rest; bake time and verdicts begin afresh."""
    fresh = {"step": step, "entered": state.generation + 1, "entered_at": row.at, "baked": False, "verdict": None}
    evidence = fact.evidence if isinstance(fact, facts.RolloutAdvanced) else ()
    rollout = _moved(state, RolloutState.CANARY, row, evidence=evidence, **fresh)
    weight = rollout.policy.weights[step]
    roles = {fact.ref: (Role.CANARY, weight)}
    if state.version is not None:
        roles[state.version] = (Role.PRIMARY, 100 - weight)
    return _changed(state, row, targets=_placed(state, roles, row), rollout=rollout)


def _moved(state: Deployment, to: RolloutState, row: _Row, **changes: object) -> Rollout:
    rollout = state.require_rollout()
    if to not in ROLLOUT_NEXT[rollout.state]:
        raise IllegalMove(what=f"Rollout {rollout.id}", state=rollout.state, move=to)
    moved = {"state": to, "actor": row.actor, "reason": row.reason, "changed_at": row.at}
    return rollout.model_copy(update={**moved, **changes})


def _noted(state: Deployment, fact: facts.VerdictRecorded | facts.StepBaked, **changes: object) -> Deployment:
    """Something is remembered of the step, but nothing that is to be served changes: no new generation."""
    rollout = state.require_rollout().model_copy(update=changes)
    return state.model_copy(update={"rollout": rollout})


_ORDER = {Role.PRIMARY: 0, Role.CANARY: 1, Role.DRAINING: 2}


def _placed(
    state: Deployment, roles: dict[VersionRef, tuple[Role, int]], row: _Row, without: VersionRef | None = None
) -> tuple[Served, ...]:
    """The targets of the next generation; a version that keeps its role keeps since when it has it.

    What drains was brought by a rollout, so there is one, and its policy says for how long.
    """
    targets = {target.version: target for target in state.targets if target.version != without}
    drain = timedelta(seconds=state.rollout.policy.drain_seconds if state.rollout else 0)
    for version, (role, weight) in roles.items():
        current = targets.get(version)
        if current is not None and current.role is role:
            targets[version] = current.model_copy(update={"weight": weight})
        else:
            until = row.at + drain if role is Role.DRAINING else None
            since = state.generation + 1
            targets[version] = Served(version=version, role=role, weight=weight, since=since, until=until)
    return tuple(sorted(targets.values(), key=lambda target: (_ORDER[target.role], target.version.version)))


def _changed(state: Deployment, row: _Row, **changes: object) -> Deployment:
    """A new generation: what is to be served, or what is said about it, is no longer the same."""
    latest = {"generation": state.generation + 1, "reason": row.reason, "changed_at": row.at}
    return state.model_copy(update={**latest, **changes})
