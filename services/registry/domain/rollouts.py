"""How a rollout begins, moves and ends: the moves that commands share. Each records into a draft."""

from services.contracts.events import Evidence, Role
from services.registry.domain import facts
from services.registry.domain.decision import Decision
from services.registry.domain.policy import RolloutPolicy
from services.registry.domain.state import Rollout, RolloutState, Version, VersionStatus
from services.registry.errors import (
    AlreadyServing,
    GateRefused,
    NothingToRollBackTo,
    NotReadyYet,
    RolloutUnderWay,
    StaleComparison,
    UnknownDeployment,
)

REGISTRY = "registry"


def require_startable(draft: Decision, name: str, version: Version, *, skip_gate: bool) -> bool:
    """Whether the gate has to be skipped for it. Raises what forbids the start."""
    state = draft.state
    if name not in state.deployments and name != state.model:
        raise UnknownDeployment(deployment=name)
    deployment = state.deployments.get(name)
    if deployment and (rollout := deployment.active_rollout):
        raise RolloutUnderWay(rollout=rollout.id, version=rollout.version, state=rollout.state, deployment=name)
    champion = deployment.version if deployment else None
    if version.number == champion:
        raise AlreadyServing(version=version.number, deployment=name)
    if version.status is not VersionStatus.PASSED:
        if not skip_gate:
            failed = [check.name for check in version.gate.checks if not check.passed] if version.gate else []
            raise GateRefused(model=state.model, version=version.number, checks=", ".join(failed) or "not judged yet")
        return True
    compared = version.gate.champion if version.gate else None
    if champion is not None and compared != champion:
        if not skip_gate:
            against = "nothing" if compared is None else compared
            raise StaleComparison(model=state.model, version=version.number, compared=against, champion=champion)
        return True
    return False


def start(
    draft: Decision,
    name: str,
    version: int,
    *,
    actor: str,
    reason: str,
    policy: RolloutPolicy | None = None,
    gate_skipped: bool = False,
    returning: bool = False,
) -> None:
    """Replicas are to load it. Where nothing serves yet there is nothing to compare with: no canary steps."""
    model = draft.state.model
    if name not in draft.state.deployments:
        draft.record(facts.DeploymentCreated(model=model, deployment=name), actor, reason)
    deployment = draft.deployment(name)
    policy = policy or draft.rules.rollout
    started = facts.RolloutStarted(
        model=model,
        deployment=name,
        rollout=f"{name}-r{deployment.rollouts + 1}",
        version=version,
        policy=policy.at_once() if returning or deployment.version is None else policy,
        gate_skipped=gate_skipped,
        returning=returning,
    )
    draft.record(started, actor, reason)
    draft.settle_aliases(name, actor, reason)


def loaded(draft: Decision, name: str, rollout: Rollout, *, replica: str) -> None:
    """Traffic moves only to what is ready: now it may."""
    model, version = draft.state.model, rollout.version
    reason = f"version {version} is ready on {replica}"
    if not rollout.policy.weights:
        promote(draft, name, rollout, actor=REGISTRY, reason=reason)
        return
    fact = facts.RolloutLoaded(model=model, deployment=name, rollout=rollout.id, version=version, replica=replica)
    draft.record(fact, REGISTRY, reason)


def advance(draft: Decision, name: str, rollout: Rollout, evidence: tuple[Evidence, ...], *, reason: str) -> None:
    """To the next step, or after the last one to all traffic."""
    step = rollout.step + 1
    if step >= len(rollout.policy.weights):
        promote(draft, name, rollout, actor=REGISTRY, reason=reason, evidence=evidence)
        return
    fact = facts.RolloutAdvanced(
        model=draft.state.model,
        deployment=name,
        rollout=rollout.id,
        version=rollout.version,
        step=step,
        evidence=evidence,
    )
    draft.record(fact, REGISTRY, reason)


def promote(
    draft: Decision, name: str, rollout: Rollout, *, actor: str, reason: str, evidence: tuple[Evidence, ...] = ()
) -> None:
    model, version = draft.state.model, rollout.version
    fact = facts.RolloutPromoted(model=model, deployment=name, rollout=rollout.id, version=version, evidence=evidence)
    draft.record(fact, actor, reason)
    draft.settle_aliases(name, actor, reason)


def require_loaded(rollout: Rollout, name: str) -> None:
    if rollout.state is RolloutState.LOADING:
        raise NotReadyYet(version=rollout.version, deployment=name)


def roll_back(
    draft: Decision, name: str, rollout: Rollout, *, actor: str, reason: str, evidence: tuple[Evidence, ...] = ()
) -> None:
    """Ends the rollout; what served before serves on."""
    model, version = draft.state.model, rollout.version
    fact = facts.RolloutRolledBack(model=model, deployment=name, rollout=rollout.id, version=version, evidence=evidence)
    draft.record(fact, actor, reason)
    draft.settle_aliases(name, actor, reason)


def return_to_previous(draft: Decision, name: str, *, actor: str, reason: str) -> None:
    """At once where the version before is still loaded, else as soon as it is. Raises NothingToRollBackTo."""
    deployment = draft.deployment(name)
    present = deployment.version
    if present is None or not deployment.before:
        raise NothingToRollBackTo(deployment=name)
    previous = deployment.before[-1]
    target = deployment.target(previous)
    if target is None or target.role is not Role.DRAINING:
        start(draft, name, previous, actor=actor, reason=reason, returning=True)
        return
    fact = facts.DeploymentRolledBack(model=draft.state.model, deployment=name, before=present, after=previous)
    draft.record(fact, actor, reason)
    draft.settle_aliases(name, actor, reason)


def stop(draft: Decision, name: str, *, actor: str, reason: str) -> None:
    """Nothing serves any more: @champion is nobody, and @previous is who served until now."""
    deployment = draft.deployment(name)
    if deployment.stopped:
        return
    serving = deployment.version
    if rollout := deployment.active_rollout:
        roll_back(draft, name, rollout, actor=actor, reason=reason)
    draft.record(facts.DeploymentStopped(model=draft.state.model, deployment=name, version=serving), actor, reason)
    draft.settle_aliases(name, actor, reason)


def start_waiting(draft: Decision, name: str) -> None:
    """The newest version that passed while another rollout was under way gets its turn, if nothing overtook it."""
    deployment = draft.deployment(name)
    if deployment.active_rollout is not None or deployment.stopped:
        return
    for version in reversed(draft.state.versions):
        fresh = version.gate is not None and version.gate.champion == deployment.version
        wanted = version.trained.deploy and not version.rolled_out and version.status is VersionStatus.PASSED
        if wanted and fresh:
            start(draft, name, version.number, actor=REGISTRY, reason="it had waited for the rollout before to end")
            return
