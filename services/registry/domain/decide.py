"""`decide(state, command) -> facts`: every rule of the registry, pure. Nothing is remembered here."""

from datetime import datetime
from functools import singledispatch

from services.contracts.artifact import Precision
from services.contracts.events import Role, Verdict
from services.registry.domain import commands, facts, rollouts
from services.registry.domain.commands import Command
from services.registry.domain.decision import Decision
from services.registry.domain.facts import Decided
from services.registry.domain.gate import judge, serving_variant
from services.registry.domain.policy import Rules
from services.registry.domain.rollouts import REGISTRY
from services.registry.domain.state import RESERVED_ALIASES, ModelState, Rollout, RolloutState
from services.registry.errors import IllegalMove, ReservedAlias, UnknownAlias, UnknownModel

TRAINER = "trainer"
MONITOR = "monitor"

ASKED_BY_PEOPLE = (
    commands.SetAlias
    | commands.StartRollout
    | commands.PauseRollout
    | commands.ResumeRollout
    | commands.PromoteRollout
    | commands.RollBack
    | commands.StopDeployment
)


def decide(state: ModelState, command: Command, *, at: datetime, rules: Rules) -> list[Decided]:
    """The facts that follow, in order; none when nothing does.

    A person's command that the state does not allow raises a refusal of `services.registry.errors`. Events and timers
    never do: what is late, repeated or about something that is gone changes nothing.
    """
    if isinstance(command, ASKED_BY_PEOPLE) and not state.versions:
        raise UnknownModel(model=state.model)
    draft = Decision(state, at, rules)
    _decide(command, draft)
    return draft.decided


@singledispatch
def _decide(command: Command, draft: Decision) -> None:
    raise TypeError(f"no rule for {type(command).__name__}")


# --- versions and aliases ----------------------------------------------------------------------


@_decide.register
def _(command: commands.RegisterVersion, draft: Decision) -> None:
    trained, state = command.trained, draft.state
    if any(version.trained.run == trained.run for version in state.versions):
        return
    number, variant = len(state.versions) + 1, serving_variant(trained)
    precision = variant.precision if variant else Precision.FP32
    registered = facts.VersionRegistered(model=state.model, version=number, precision=precision, trained=trained)
    draft.record(registered, TRAINER, f"run {trained.run} succeeded")
    gate = judge(trained, state.champion, draft.rules.gate)
    if not gate.passed:
        reason = "; ".join(check.detail for check in gate.checks if not check.passed)
        draft.record(facts.VersionRefused(model=state.model, version=number, gate=gate), REGISTRY, reason)
        return
    draft.record(facts.VersionPassed(model=state.model, version=number, gate=gate), REGISTRY, "all checks passed")
    present = state.deployments.get(state.model)
    if trained.deploy and not (present and (present.active_rollout or present.stopped)):
        rollouts.start(draft, state.model, number, actor=REGISTRY, reason=f"version {number} passed its gate")


@_decide.register
def _(command: commands.RecordTrainingFailed, draft: Decision) -> None:
    failed = command.failed
    if failed.run in draft.state.failed_runs:
        return
    fact = facts.RunFailed(
        model=draft.state.model,
        run=failed.run,
        dataset=failed.dataset,
        stage=failed.stage,
        code=failed.code,
        retryable=failed.retryable,
    )
    draft.record(fact, TRAINER, failed.reason)


@_decide.register
def _(command: commands.RecordDrift, draft: Decision) -> None:
    drift = command.drift
    if drift.version > len(draft.state.versions) or draft.state.version(drift.version).drifted_at is not None:
        return
    fact = facts.VersionDrifted(
        model=draft.state.model,
        version=drift.version,
        test=drift.test,
        statistic=drift.statistic,
        p_value=drift.p_value,
    )
    draft.record(fact, MONITOR, f"p = {drift.p_value:.4g} in {drift.consecutive} windows in a row")


@_decide.register
def _(command: commands.SetAlias, draft: Decision) -> None:
    if command.alias in RESERVED_ALIASES:
        raise ReservedAlias(alias=command.alias)
    if command.version is not None:
        draft.state.version(command.version)
    elif command.alias not in draft.state.aliases:
        raise UnknownAlias(model=draft.state.model, alias=command.alias)
    draft.move_alias(command.alias, command.version, command.actor, command.reason)


# --- what people ask of rollouts ---------------------------------------------------------------


@_decide.register
def _(command: commands.StartRollout, draft: Decision) -> None:
    version = draft.state.version(command.version)
    skipped = rollouts.require_startable(draft, command.deployment, version, skip_gate=command.skip_gate)
    rollouts.start(
        draft,
        command.deployment,
        command.version,
        actor=command.actor,
        reason=command.reason,
        policy=command.policy,
        gate_skipped=skipped,
    )


@_decide.register
def _(command: commands.PauseRollout, draft: Decision) -> None:
    rollout = draft.deployment(command.deployment).require_rollout()
    draft.record(_paused(draft, command.deployment, rollout), command.actor, command.reason)


@_decide.register
def _(command: commands.ResumeRollout, draft: Decision) -> None:
    name = command.deployment
    rollout = draft.deployment(name).require_rollout()
    if rollout.state is not RolloutState.PAUSED:
        raise IllegalMove(what=f"Rollout {rollout.id}", state=rollout.state, move="resumed")
    model, version = draft.state.model, rollout.version
    fact = facts.RolloutResumed(model=model, deployment=name, rollout=rollout.id, version=version)
    draft.record(fact, command.actor, command.reason)
    if rollout.baked and rollout.verdict is Verdict.PROMOTE:
        rollouts.advance(draft, name, rollout, rollout.evidence, reason="the evidence came while it was paused")


@_decide.register
def _(command: commands.PromoteRollout, draft: Decision) -> None:
    rollout = draft.deployment(command.deployment).require_rollout()
    rollouts.require_loaded(rollout, command.deployment)
    rollouts.promote(
        draft,
        command.deployment,
        rollout,
        actor=command.actor,
        reason=command.reason,
        evidence=rollout.evidence,
    )


@_decide.register
def _(command: commands.RollBack, draft: Decision) -> None:
    name, actor, reason = command.deployment, command.actor, command.reason
    rollout = draft.deployment(name).active_rollout
    if rollout is None:
        rollouts.return_to_previous(draft, name, actor=actor, reason=reason)
    elif not rollout.returning:  # a second call must not undo the way back that the first one began
        rollouts.roll_back(draft, name, rollout, actor=actor, reason=reason)


@_decide.register
def _(command: commands.StopDeployment, draft: Decision) -> None:
    rollouts.stop(draft, command.deployment, actor=command.actor, reason=command.reason)


# --- what replicas and the monitor tell --------------------------------------------------------


@_decide.register
def _(command: commands.ApplyReport, draft: Decision) -> None:
    report = command.report
    if report.leaving:
        return
    others = command.waiting - {report.replica}
    for part in report.versions:
        rollout = _under_way(draft, part.deployment)
        if rollout is None or part.model != draft.state.model or part.version != rollout.version:
            continue
        if report.generations.get(part.deployment, 0) < rollout.generation:
            continue  # it tells of an earlier attempt: this replica has not heard of the rollout yet
        if part.state == "failed":
            reason = f"version {part.version} failed to load on {report.replica}: {part.reason or 'no reason given'}"
            rollouts.roll_back(draft, part.deployment, rollout, actor=REGISTRY, reason=reason)
            rollouts.start_waiting(draft, part.deployment)
        elif part.state == "ready" and rollout.state is RolloutState.LOADING and not others:
            rollouts.loaded(draft, part.deployment, rollout, replica=report.replica)


@_decide.register
def _(command: commands.ApplyVerdict, draft: Decision) -> None:
    judged = command.judged
    name, evidence = judged.deployment, tuple(judged.evidence)
    rollout = _under_way(draft, name)
    if rollout is None or rollout.id != judged.rollout:
        return
    if judged.verdict is Verdict.ROLL_BACK:
        rollouts.roll_back(draft, name, rollout, actor=MONITOR, reason=judged.reason, evidence=evidence)
        rollouts.start_waiting(draft, name)
        return
    if judged.step != rollout.step or rollout.state is RolloutState.LOADING:
        return
    enough = judged.verdict is Verdict.PROMOTE and judged.requests >= rollout.policy.minimum_requests
    if enough and rollout.baked and rollout.state is RolloutState.CANARY:
        rollouts.advance(draft, name, rollout, evidence, reason=judged.reason)
    elif enough != (rollout.verdict is Verdict.PROMOTE):
        fact = facts.VerdictRecorded(
            model=draft.state.model,
            deployment=name,
            rollout=rollout.id,
            version=rollout.version,
            step=rollout.step,
            verdict=Verdict.PROMOTE if enough else Verdict.HOLD,
            requests=judged.requests,
            evidence=evidence,
        )
        draft.record(fact, MONITOR, judged.reason)


@_decide.register
def _(command: commands.ApplyBreach, draft: Decision) -> None:
    breach = command.breach
    rollout = _under_way(draft, breach.deployment)
    if rollout is None or rollout.version != breach.version or rollout.state is RolloutState.LOADING:
        return
    reason = f"{breach.indicator} burn the error budget {breach.burn_rate:.3g} times too fast"
    rollouts.roll_back(draft, breach.deployment, rollout, actor=MONITOR, reason=reason)
    rollouts.start_waiting(draft, breach.deployment)


# --- what timers tell --------------------------------------------------------------------------


@_decide.register
def _(command: commands.BakeElapsed, draft: Decision) -> None:
    rollout = _in_step(draft, command)
    if rollout is None or rollout.baked:
        return
    name, seconds = command.deployment, rollout.policy.bake_seconds
    if rollout.verdict is Verdict.PROMOTE:
        reason = f"the evidence is there and {seconds:g} s of bake time are over"
        rollouts.advance(draft, name, rollout, rollout.evidence, reason=reason)
        return
    fact = facts.StepBaked(
        model=draft.state.model, deployment=name, rollout=rollout.id, version=rollout.version, step=rollout.step
    )
    draft.record(fact, REGISTRY, f"{seconds:g} s of bake time are over; it waits for evidence")


@_decide.register
def _(command: commands.StepTimedOut, draft: Decision) -> None:
    rollout = _in_step(draft, command)
    if rollout is not None:
        seconds = rollout.policy.step_timeout_seconds
        reason = f"the evidence is too thin after {seconds:g} s in step {rollout.step}; it pauses rather than guesses"
        draft.record(_paused(draft, command.deployment, rollout), REGISTRY, reason)


@_decide.register
def _(command: commands.DrainElapsed, draft: Decision) -> None:
    deployment = draft.state.deployments.get(command.deployment)
    target = deployment.target(command.version) if deployment else None
    if target is not None and target.role is Role.DRAINING and target.since == command.since:
        fact = facts.TargetDropped(model=draft.state.model, deployment=command.deployment, version=command.version)
        draft.record(fact, REGISTRY, f"version {command.version} has drained")


def _under_way(draft: Decision, name: str) -> Rollout | None:
    deployment = draft.state.deployments.get(name)
    return deployment.active_rollout if deployment else None


def _in_step(draft: Decision, timer: commands.BakeElapsed | commands.StepTimedOut) -> Rollout | None:
    """The canary whose present step the timer was set for; a timer of an earlier step is late."""
    rollout = _under_way(draft, timer.deployment)
    fits = rollout is not None and rollout.id == timer.rollout and rollout.entered == timer.entered
    return rollout if fits and rollout is not None and rollout.state is RolloutState.CANARY else None


def _paused(draft: Decision, name: str, rollout: Rollout) -> facts.RolloutPaused:
    model, version = draft.state.model, rollout.version
    return facts.RolloutPaused(model=model, deployment=name, rollout=rollout.id, version=version)
