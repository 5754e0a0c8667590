"""`decide_deployment(state, command) -> facts`: the rules of a deployment and its rollouts, pure."""

from collections.abc import Mapping
from datetime import datetime
from functools import singledispatch

from services.contracts.events import ReplicaReported, ReplicaVersion, Role, Verdict
from services.registry.domain import commands, facts, rollouts
from services.registry.domain.commands import DeploymentCommand
from services.registry.domain.decision import Decision
from services.registry.domain.facts import Decided
from services.registry.domain.policy import Rules
from services.registry.domain.rollouts import MONITOR, REGISTRY
from services.registry.domain.spec import DeploymentSpec, VersionRef
from services.registry.domain.state import Deployment, ModelState, Rollout, RolloutState
from services.registry.errors import DeploymentExists, IllegalMove, NotStopped, UnknownDeployment


def decide_deployment(
    state: Deployment,
    command: DeploymentCommand,
    *,
    models: Mapping[str, ModelState],
    at: datetime,
    rules: Rules,
) -> list[Decided]:
    """The facts that follow, in order; none when nothing does. `models` holds those that the command may refer to.

    A person's command that the state does not allow raises an error of `services.registry.errors`. Events and timers
    never do: what is late, repeated or about something that is gone changes nothing.
    """
    draft = Decision(state, at, rules, models)
    _decide(command, draft)
    return draft.decided


@singledispatch
def _decide(command: DeploymentCommand, draft: Decision[Deployment]) -> None:
    raise TypeError(f"no rule for {type(command).__name__}")


# --- commands of people: the deployment --------------------------------------------------------


@_decide.register
def _(command: commands.CreateDeployment, draft: Decision[Deployment]) -> None:
    if draft.state.spec is not None:
        raise DeploymentExists(deployment=command.deployment)
    draft.model(command.spec.model)
    draft.record(
        facts.DeploymentCreated(deployment=command.deployment, spec=command.spec), command.actor, command.reason
    )


@_decide.register
def _(command: commands.UpdateDeployment, draft: Decision[Deployment]) -> None:
    current = draft.state.require_spec()
    spec = current.changed(command.changes, draft.rules.rollout)
    draft.model(spec.model)
    if spec.model != current.model:
        rollouts.require_none(draft)
    if spec != current:
        fact = facts.DeploymentUpdated(deployment=command.deployment, spec=spec)
        draft.record(fact, command.actor, command.reason)


@_decide.register
def _(command: commands.DeleteDeployment, draft: Decision[Deployment]) -> None:
    draft.state.require_spec()
    if draft.state.version is not None or draft.state.active_rollout is not None:
        raise NotStopped(deployment=command.deployment)
    draft.record(facts.DeploymentDeleted(deployment=command.deployment), command.actor, command.reason)


# --- commands of people: rollouts --------------------------------------------------------------


@_decide.register
def _(command: commands.StartRollout, draft: Decision[Deployment]) -> None:
    actor, reason = command.actor, command.reason
    if draft.state.spec is None:
        if not draft.has_model(command.deployment):
            raise UnknownDeployment(deployment=command.deployment)
        rollouts.create(draft, DeploymentSpec(model=command.deployment), actor=actor, reason=reason)
    policy = rollouts.default_policy(draft).changed(command.policy)
    ref = VersionRef(model=draft.state.require_spec().model, version=command.version)
    skipped = rollouts.require_startable(draft, draft.version(ref), skip_gate=command.skip_gate)
    rollouts.start(draft, ref, actor=actor, reason=reason, policy=policy, gate_skipped=skipped)


@_decide.register
def _(command: commands.OfferVersion, draft: Decision[Deployment]) -> None:
    version, name = command.version, draft.state.name
    if draft.state.spec is None and name == version.model and not draft.state.generation:
        rollouts.create(draft, DeploymentSpec(model=name), actor=REGISTRY, reason=command.reason)
    spec = draft.state.spec
    if spec is None or spec.model != version.model or not spec.automatic or draft.state.stopped:
        return
    if draft.state.active_rollout is None and rollouts.is_fresh(draft, draft.version(version)):
        rollouts.start(draft, version, actor=REGISTRY, reason=command.reason)


@_decide.register
def _(command: commands.ApproveRollout, draft: Decision[Deployment]) -> None:
    rollout = draft.state.require_rollout()
    if rollout.state is not RolloutState.PENDING:
        raise IllegalMove(what=f"Rollout {rollout.id}", state=rollout.state, move="approved")
    draft.record(facts.RolloutApproved(**rollouts.naming(draft, rollout)), command.actor, command.reason)


@_decide.register
def _(command: commands.PauseRollout, draft: Decision[Deployment]) -> None:
    rollout = draft.state.require_rollout()
    draft.record(facts.RolloutPaused(**rollouts.naming(draft, rollout)), command.actor, command.reason)


@_decide.register
def _(command: commands.ResumeRollout, draft: Decision[Deployment]) -> None:
    rollout = draft.state.require_rollout()
    if rollout.state is not RolloutState.PAUSED:
        raise IllegalMove(what=f"Rollout {rollout.id}", state=rollout.state, move="resumed")
    draft.record(facts.RolloutResumed(**rollouts.naming(draft, rollout)), command.actor, command.reason)
    if rollout.baked and rollout.verdict is Verdict.PROMOTE:
        rollouts.advance(draft, rollout, rollout.evidence, reason="the evidence came while it was paused")


@_decide.register
def _(command: commands.PromoteRollout, draft: Decision[Deployment]) -> None:
    rollout = draft.state.require_rollout()
    rollouts.require_loaded(draft, rollout)
    evidence = rollout.evidence
    rollouts.promote(draft, rollout, actor=command.actor, reason=command.reason, evidence=evidence)


@_decide.register
def _(command: commands.RollBack, draft: Decision[Deployment]) -> None:
    actor, reason = command.actor, command.reason
    rollout = draft.state.active_rollout
    draft.state.require_spec()
    if rollout is None:
        rollouts.return_to_previous(draft, actor=actor, reason=reason)
    elif not rollout.returning:  # a second call must not undo the way back that the first one began
        rollouts.roll_back(draft, rollout, actor=actor, reason=reason)


@_decide.register
def _(command: commands.StopDeployment, draft: Decision[Deployment]) -> None:
    draft.state.require_spec()
    rollouts.stop(draft, actor=command.actor, reason=command.reason)


# --- events of replicas and the monitor --------------------------------------------------------


@_decide.register
def _(command: commands.ApplyReport, draft: Decision[Deployment]) -> None:
    report, rollout = command.report, draft.state.active_rollout
    if report.leaving or rollout is None:
        return
    if report.generations.get(command.deployment, 0) < rollout.generation:
        return  # it reports on an earlier attempt: this replica has not seen the rollout yet
    part = _reported(report, command.deployment, rollout)
    if part is None:
        return
    if part.state == "failed":
        problem = part.reason or "no reason given"
        reason = f"version {part.version} failed to load on {report.replica}: {problem}"
        rollouts.roll_back(draft, rollout, actor=REGISTRY, reason=reason)
        rollouts.start_waiting(draft)
    elif part.state == "ready" and rollout.state is RolloutState.LOADING and not command.missing:
        rollouts.loaded(draft, rollout, replica=report.replica)


def _reported(report: ReplicaReported, deployment: str, rollout: Rollout) -> ReplicaVersion | None:
    version = rollout.version
    return next(
        (
            part
            for part in report.versions
            if (part.deployment, part.model, part.version) == (deployment, version.model, version.version)
        ),
        None,
    )


@_decide.register
def _(command: commands.ApplyVerdict, draft: Decision[Deployment]) -> None:
    judged, rollout = command.judged, draft.state.active_rollout
    evidence = tuple(judged.evidence)
    if rollout is None or rollout.id != judged.rollout:
        return
    if judged.verdict is Verdict.ROLL_BACK:
        rollouts.roll_back(draft, rollout, actor=MONITOR, reason=judged.reason, evidence=evidence)
        rollouts.start_waiting(draft)
        return
    if judged.step != rollout.step or rollout.state not in (RolloutState.CANARY, RolloutState.PAUSED):
        return
    enough = judged.verdict is Verdict.PROMOTE and judged.requests >= rollout.policy.minimum_requests
    if enough and rollout.baked and rollout.state is RolloutState.CANARY:
        rollouts.advance(draft, rollout, evidence, reason=judged.reason)
    elif enough != (rollout.verdict is Verdict.PROMOTE):
        fact = facts.VerdictRecorded(
            **rollouts.naming(draft, rollout),
            step=rollout.step,
            verdict=Verdict.PROMOTE if enough else Verdict.HOLD,
            requests=judged.requests,
            evidence=evidence,
        )
        draft.record(fact, MONITOR, judged.reason)


@_decide.register
def _(command: commands.ApplyBreach, draft: Decision[Deployment]) -> None:
    breach, rollout = command.breach, draft.state.active_rollout
    if rollout is None or rollout.version.version != breach.version:
        return
    if rollout.state not in (RolloutState.CANARY, RolloutState.PAUSED):
        return
    reason = f"{breach.indicator} burn the error budget {breach.burn_rate:.3g} times too fast"
    rollouts.roll_back(draft, rollout, actor=MONITOR, reason=reason)
    rollouts.start_waiting(draft)


# --- timers ------------------------------------------------------------------------------------


@_decide.register
def _(command: commands.BakeElapsed, draft: Decision[Deployment]) -> None:
    rollout = _in_step(draft, command)
    if rollout is None or rollout.baked:
        return
    seconds = rollout.policy.bake_seconds
    if rollout.verdict is Verdict.PROMOTE:
        reason = f"the evidence is there and {seconds:g} s of bake time are over"
        rollouts.advance(draft, rollout, rollout.evidence, reason=reason)
        return
    fact = facts.StepBaked(**rollouts.naming(draft, rollout), step=rollout.step)
    draft.record(fact, REGISTRY, f"{seconds:g} s of bake time are over; it waits for evidence")


@_decide.register
def _(command: commands.StepTimedOut, draft: Decision[Deployment]) -> None:
    rollout = _in_step(draft, command)
    if rollout is not None:
        seconds = rollout.policy.step_timeout_seconds
        reason = f"the evidence is too thin after {seconds:g} s in step {rollout.step}; it pauses rather than guesses"
        draft.record(facts.RolloutPaused(**rollouts.naming(draft, rollout)), REGISTRY, reason)


@_decide.register
def _(command: commands.LoadTimedOut, draft: Decision[Deployment]) -> None:
    """Only where something serves: a first version goes on waiting, since nothing is better than it."""
    rollout = draft.state.active_rollout
    if rollout is None or rollout.state is not RolloutState.LOADING or draft.state.version is None:
        return
    if (rollout.id, rollout.entered) == (command.rollout, command.entered):
        seconds, number = rollout.policy.load_timeout_seconds, rollout.version.version
        reason = f"version {number} was not ready on enough replicas within {seconds:g} s"
        rollouts.roll_back(draft, rollout, actor=REGISTRY, reason=reason)
        rollouts.start_waiting(draft)


@_decide.register
def _(command: commands.DrainElapsed, draft: Decision[Deployment]) -> None:
    target = draft.state.target(command.version)
    if target is not None and target.role is Role.DRAINING and target.since == command.since:
        fact = facts.TargetDropped(deployment=command.deployment, version=command.version)
        draft.record(fact, REGISTRY, f"version {command.version.version} has drained")


def _in_step(draft: Decision[Deployment], timer: commands.BakeElapsed | commands.StepTimedOut) -> Rollout | None:
    """The canary whose present step the timer was set for; a timer of an earlier step is late."""
    rollout = draft.state.active_rollout
    if rollout is None or rollout.state is not RolloutState.CANARY:
        return None
    return rollout if (rollout.id, rollout.entered) == (timer.rollout, timer.entered) else None
