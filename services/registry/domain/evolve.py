"""`evolve(state, decided, at) -> state`: what each fact changes. Pure, and the only way a state comes about."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import singledispatch

from services.contracts.events import Role
from services.registry.domain import facts
from services.registry.domain.facts import AnyFact, Decided
from services.registry.domain.state import (
    ROLLOUT_NEXT,
    VERSION_NEXT,
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


def evolve(state: ModelState, decided: Decided, at: datetime) -> ModelState:
    """The state after the fact. Raises IllegalMove when a lifecycle does not allow it; never for a written history."""
    return _apply(decided.fact, state, _Row(decided.actor, decided.reason, at))


def fold(model: str, rows: Iterable[tuple[Decided, datetime]]) -> ModelState:
    """The state after all rows of the model's stream, in order; stop early to see it at any earlier time."""
    state = ModelState(model=model)
    for decided, at in rows:
        state = evolve(state, decided, at)
    return state


@singledispatch
def _apply(fact: AnyFact, state: ModelState, row: _Row) -> ModelState:
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
    present = state.version(number).status
    if status not in VERSION_NEXT[present]:
        raise IllegalMove(what=f"Version {number}", state=present, move=status)
    return _with_version(state, number, status=status, gate=gate)


def _with_version(state: ModelState, number: int, **changes: object) -> ModelState:
    new = state.version(number).model_copy(update=changes)
    return state.model_copy(update={"versions": (*state.versions[: number - 1], new, *state.versions[number:])})


# --- deployments and rollouts ------------------------------------------------------------------


@_apply.register
def _(fact: facts.DeploymentCreated, state: ModelState, row: _Row) -> ModelState:
    return _with_deployment(state, Deployment(name=fact.deployment, reason=row.reason, changed_at=row.at))


@_apply.register
def _(fact: facts.RolloutStarted, state: ModelState, row: _Row) -> ModelState:
    old = state.deployment(fact.deployment)
    generation = old.generation + 1
    rollout = Rollout(
        id=fact.rollout,
        version=fact.version,
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
    targets = _placed(old, {fact.version: (Role.CANARY, 0)}, row)
    state = _with_version(state, fact.version, rolled_out=True)
    return _changed(state, old, row, targets=targets, rollout=rollout, rollouts=old.rollouts + 1, stopped=False)


@_apply.register
def _(fact: facts.RolloutLoaded, state: ModelState, row: _Row) -> ModelState:
    return _step(state, fact, row, step=0)


@_apply.register
def _(fact: facts.RolloutAdvanced, state: ModelState, row: _Row) -> ModelState:
    return _step(state, fact, row, step=fact.step)


@_apply.register
def _(fact: facts.VerdictRecorded, state: ModelState, row: _Row) -> ModelState:
    return _noted(state, fact, verdict=fact.verdict, evidence=fact.evidence)


@_apply.register
def _(fact: facts.StepBaked, state: ModelState, row: _Row) -> ModelState:
    return _noted(state, fact, baked=True)


@_apply.register
def _(fact: facts.RolloutPaused, state: ModelState, row: _Row) -> ModelState:
    old = state.deployment(fact.deployment)
    return _changed(state, old, row, rollout=_moved(old, RolloutState.PAUSED, row))


@_apply.register
def _(fact: facts.RolloutResumed, state: ModelState, row: _Row) -> ModelState:
    old = state.deployment(fact.deployment)
    rollout = _moved(old, RolloutState.CANARY, row, entered=old.generation + 1, entered_at=row.at)
    return _changed(state, old, row, rollout=rollout)


@_apply.register
def _(fact: facts.RolloutPromoted, state: ModelState, row: _Row) -> ModelState:
    old = state.deployment(fact.deployment)
    rollout = _moved(old, RolloutState.PROMOTED, row, evidence=fact.evidence)
    roles = {fact.version: (Role.PRIMARY, 100)}
    back_from_a_stop = old.version is None and old.before[-1:] == (fact.version,)
    before = old.before[:-1] if rollout.returning or back_from_a_stop else old.before
    if old.version is not None:
        roles[old.version] = (Role.DRAINING, 0)
        if not rollout.returning:
            before = (*before, old.version)
    return _changed(state, old, row, targets=_placed(old, roles, row), before=before, rollout=rollout)


@_apply.register
def _(fact: facts.RolloutRolledBack, state: ModelState, row: _Row) -> ModelState:
    old = state.deployment(fact.deployment)
    loaded = old.require_rollout().state is not RolloutState.LOADING
    rollout = _moved(old, RolloutState.ROLLED_BACK, row, evidence=fact.evidence)
    roles = {old.version: (Role.PRIMARY, 100)} if old.version is not None else {}
    if loaded:
        roles[fact.version] = (Role.DRAINING, 0)
    targets = _placed(old, roles, row, without=None if loaded else fact.version)
    return _changed(state, old, row, targets=targets, rollout=rollout)


@_apply.register
def _(fact: facts.DeploymentRolledBack, state: ModelState, row: _Row) -> ModelState:
    old = state.deployment(fact.deployment)
    roles = {fact.after: (Role.PRIMARY, 100), fact.before: (Role.DRAINING, 0)}
    return _changed(state, old, row, targets=_placed(old, roles, row), before=old.before[:-1])


@_apply.register
def _(fact: facts.DeploymentStopped, state: ModelState, row: _Row) -> ModelState:
    old = state.deployment(fact.deployment)
    roles = {target.version: (Role.DRAINING, 0) for target in old.targets}
    before = old.before if fact.version is None else (*old.before, fact.version)
    return _changed(state, old, row, targets=_placed(old, roles, row), before=before, stopped=True)


@_apply.register
def _(fact: facts.TargetDropped, state: ModelState, row: _Row) -> ModelState:
    old = state.deployment(fact.deployment)
    return _changed(state, old, row, targets=_placed(old, {}, row, without=fact.version))


def _step(state: ModelState, fact: facts.RolloutLoaded | facts.RolloutAdvanced, row: _Row, step: int) -> ModelState:
    """The canary gets the step's weight and the primary the rest; bake time and verdicts begin afresh."""
    old = state.deployment(fact.deployment)
    fresh = {"step": step, "entered": old.generation + 1, "entered_at": row.at, "baked": False, "verdict": None}
    evidence = fact.evidence if isinstance(fact, facts.RolloutAdvanced) else ()
    rollout = _moved(old, RolloutState.CANARY, row, evidence=evidence, **fresh)
    weight = rollout.policy.weights[step]
    roles = {fact.version: (Role.CANARY, weight)}
    if old.version is not None:
        roles[old.version] = (Role.PRIMARY, 100 - weight)
    return _changed(state, old, row, targets=_placed(old, roles, row), rollout=rollout)


def _moved(old: Deployment, to: RolloutState, row: _Row, **changes: object) -> Rollout:
    rollout = old.require_rollout()
    if to not in ROLLOUT_NEXT[rollout.state]:
        raise IllegalMove(what=f"Rollout {rollout.id}", state=rollout.state, move=to)
    moved = {"state": to, "actor": row.actor, "reason": row.reason, "changed_at": row.at}
    return rollout.model_copy(update={**moved, **changes})


def _noted(state: ModelState, fact: facts.VerdictRecorded | facts.StepBaked, **changes: object) -> ModelState:
    """Something is remembered of the step, but nothing that is to be served changes: no new generation."""
    old = state.deployment(fact.deployment)
    rollout = old.require_rollout().model_copy(update=changes)
    return _with_deployment(state, old.model_copy(update={"rollout": rollout}))


_ORDER = {Role.PRIMARY: 0, Role.CANARY: 1, Role.DRAINING: 2}


def _placed(
    old: Deployment, roles: dict[int, tuple[Role, int]], row: _Row, without: int | None = None
) -> tuple[Served, ...]:
    """The targets of the next generation; a version that keeps its role keeps since when it has it.

    What drains was brought by a rollout, so there is one, and its policy says for how long.
    """
    targets = {target.version: target for target in old.targets if target.version != without}
    drain = timedelta(seconds=old.rollout.policy.drain_seconds if old.rollout else 0)
    for version, (role, weight) in roles.items():
        present = targets.get(version)
        if present is not None and present.role is role:
            targets[version] = present.model_copy(update={"weight": weight})
        else:
            until = row.at + drain if role is Role.DRAINING else None
            since = old.generation + 1
            targets[version] = Served(version=version, role=role, weight=weight, since=since, until=until)
    return tuple(sorted(targets.values(), key=lambda target: (_ORDER[target.role], target.version)))


def _changed(state: ModelState, old: Deployment, row: _Row, **changes: object) -> ModelState:
    """A new generation: what is to be served, or what is told about it, is no longer the same."""
    told = {"generation": old.generation + 1, "reason": row.reason, "changed_at": row.at}
    return _with_deployment(state, old.model_copy(update={**told, **changes}))


def _with_deployment(state: ModelState, new: Deployment) -> ModelState:
    return state.model_copy(update={"deployments": {**state.deployments, new.name: new}})
