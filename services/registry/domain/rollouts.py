"""How a rollout begins, moves and ends: the moves that commands share. Each records into a draft."""

from typing import Any, Final

from services.contracts.events import Evidence, Role
from services.registry.domain import facts
from services.registry.domain.decision import Decision
from services.registry.domain.policy import RolloutPolicy
from services.registry.domain.spec import Approval, DeploymentSpec, VersionRef
from services.registry.domain.state import Deployment, Rollout, RolloutState, Version, VersionStatus
from services.registry.errors import (
    AlreadyServing,
    GateRefused,
    NothingToRollBackTo,
    NotReadyYet,
    RolloutUnderWay,
    StaleComparison,
)

REGISTRY: Final = "registry"
TRAINER: Final = "trainer"
MONITOR: Final = "monitor"


def naming(draft: Decision[Deployment], rollout: Rollout) -> dict[str, Any]:
    """The fields that every fact of the rollout has."""
    version = rollout.version
    return {
        "deployment": draft.state.name,
        "rollout": rollout.id,
        "model": version.model,
        "version": version.version,
    }


def default_policy(draft: Decision[Deployment]) -> RolloutPolicy:
    """The deployment's own, or the registry's."""
    return draft.state.require_spec().policy or draft.rules.rollout


def create(draft: Decision[Deployment], spec: DeploymentSpec, *, actor: str, reason: str) -> None:
    """Raises UnknownModel."""
    draft.model(spec.model)
    draft.record(facts.DeploymentCreated(deployment=draft.state.name, spec=spec), actor, reason)


def require_none(draft: Decision[Deployment]) -> None:
    """Raises RolloutUnderWay."""
    if (rollout := draft.state.active_rollout) is not None:
        number = rollout.version.version
        raise RolloutUnderWay(rollout=rollout.id, version=number, state=rollout.state, deployment=draft.state.name)


def require_startable(draft: Decision[Deployment], version: Version, *, skip_gate: bool) -> bool:
    """Whether the gate has to be skipped for it. Raises what forbids the start."""
    require_none(draft)
    name, ref = draft.state.name, VersionRef(model=version.trained.model, version=version.number)
    if ref == draft.state.version:
        raise AlreadyServing(version=version.number, deployment=name)
    if version.status is not VersionStatus.PASSED:
        if not skip_gate:
            failed = [check.name for check in version.gate.checks if not check.passed] if version.gate else []
            raise GateRefused(model=ref.model, version=ref.version, checks=", ".join(failed) or "not judged yet")
        return True
    if not is_fresh(draft, version):
        if not skip_gate:
            champion = draft.state.version.version if draft.state.version else None
            compared = (version.gate.champion if version.gate else None) or "nothing"
            raise StaleComparison(model=ref.model, version=ref.version, compared=compared, champion=champion)
        return True
    return False


def is_fresh(draft: Decision[Deployment], version: Version) -> bool:
    """Whether it was compared with the version that serves, or need not be.

    Nothing can be compared with while nothing serves, nor with a version of another model, whose labels may differ.
    """
    serving = draft.state.version
    if serving is None or serving.model != version.trained.model or not draft.state.require_spec().compare:
        return True
    return version.gate is not None and version.gate.champion == serving.version


def start(
    draft: Decision[Deployment],
    version: VersionRef,
    *,
    actor: str,
    reason: str,
    policy: RolloutPolicy | None = None,
    gate_skipped: bool = False,
    returning: bool = False,
) -> None:
    """Replicas are to load it. Without a version of the same model to compare it with, there are no canary steps."""
    state, spec = draft.state, draft.state.require_spec()
    policy = policy or default_policy(draft)
    comparable = state.version is not None and state.version.model == version.model
    started = facts.RolloutStarted(
        deployment=state.name,
        rollout=f"{state.name}-r{state.rollouts + 1}",
        model=version.model,
        version=version.version,
        policy=policy if comparable and not returning else policy.at_once(),
        gate_skipped=gate_skipped,
        returning=returning,
        pending=actor == REGISTRY and spec.approval is Approval.MANUAL,
    )
    draft.record(started, actor, reason)


def loaded(draft: Decision[Deployment], rollout: Rollout, *, replica: str) -> None:
    """Traffic moves only to what is ready: now it may."""
    reason = f"version {rollout.version.version} is ready on {replica}"
    if not rollout.policy.weights:
        promote(draft, rollout, actor=REGISTRY, reason=reason)
        return
    draft.record(facts.RolloutLoaded(**naming(draft, rollout), replica=replica), REGISTRY, reason)


def advance(draft: Decision[Deployment], rollout: Rollout, evidence: tuple[Evidence, ...], *, reason: str) -> None:
    """To the next step, or after the last one to all traffic."""
    step = rollout.step + 1
    if step >= len(rollout.policy.weights):
        promote(draft, rollout, actor=REGISTRY, reason=reason, evidence=evidence)
        return
    fact = facts.RolloutAdvanced(**naming(draft, rollout), step=step, evidence=evidence)
    draft.record(fact, REGISTRY, reason)


def promote(
    draft: Decision[Deployment], rollout: Rollout, *, actor: str, reason: str, evidence: tuple[Evidence, ...] = ()
) -> None:
    draft.record(facts.RolloutPromoted(**naming(draft, rollout), evidence=evidence), actor, reason)


def require_loaded(draft: Decision[Deployment], rollout: Rollout) -> None:
    """Raises NotReadyYet."""
    if rollout.state in (RolloutState.PENDING, RolloutState.LOADING):
        raise NotReadyYet(version=rollout.version.version, deployment=draft.state.name)


def roll_back(
    draft: Decision[Deployment], rollout: Rollout, *, actor: str, reason: str, evidence: tuple[Evidence, ...] = ()
) -> None:
    """Ends the rollout; what served before serves on."""
    draft.record(facts.RolloutRolledBack(**naming(draft, rollout), evidence=evidence), actor, reason)


def return_to_previous(draft: Decision[Deployment], *, actor: str, reason: str) -> None:
    """At once where the version before is still loaded, else as soon as it is. Raises NothingToRollBackTo."""
    state = draft.state
    current = state.version
    if current is None or not state.before:
        raise NothingToRollBackTo(deployment=state.name)
    previous = state.before[-1]
    target = state.target(previous)
    if target is None or target.role is not Role.DRAINING:
        start(draft, previous, actor=actor, reason=reason, returning=True)
        return
    fact = facts.DeploymentRolledBack(deployment=state.name, before=current, after=previous)
    draft.record(fact, actor, reason)


def stop(draft: Decision[Deployment], *, actor: str, reason: str) -> None:
    """Nothing serves any more: @champion is nobody, and @previous is who served until now."""
    state = draft.state
    if state.stopped:
        return
    serving = state.version
    if rollout := state.active_rollout:
        roll_back(draft, rollout, actor=actor, reason=reason)
    draft.record(facts.DeploymentStopped(deployment=state.name, version=serving), actor, reason)


def start_waiting(draft: Decision[Deployment]) -> None:
    """The newest version that passed while another rollout was under way gets its turn, if nothing overtook it."""
    state = draft.state
    if state.active_rollout is not None or state.stopped or state.spec is None or not state.spec.automatic:
        return
    for version in reversed(draft.model(state.spec.model).versions):
        ref = VersionRef(model=state.spec.model, version=version.number)
        waits = version.trained.deploy and ref not in state.rolled_out and version.status is VersionStatus.PASSED
        if waits and is_fresh(draft, version):
            start(draft, ref, actor=REGISTRY, reason="it had waited for the rollout before to end")
            return
