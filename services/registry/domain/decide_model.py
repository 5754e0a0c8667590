"""`decide_model(state, command) -> facts`: the rules of a model and its versions, pure."""

from datetime import datetime
from functools import singledispatch

from services.contracts.artifact import Precision
from services.registry.domain import commands, facts
from services.registry.domain.commands import ModelCommand
from services.registry.domain.decision import Decision
from services.registry.domain.facts import Decided
from services.registry.domain.gate import judge, serving_variant
from services.registry.domain.policy import Rules
from services.registry.domain.rollouts import MONITOR, REGISTRY, TRAINER
from services.registry.domain.state import RESERVED_ALIASES, ModelState
from services.registry.errors import ReservedAlias, UnknownAlias, UnknownModel


def decide_model(state: ModelState, command: ModelCommand, *, at: datetime, rules: Rules) -> list[Decided]:
    """The facts that follow, in order; none when nothing does.

    A person's command that the state does not allow raises an error of `services.registry.errors`. Events never do:
    what is late, repeated or about something that is gone changes nothing.
    """
    draft = Decision(state, at, rules, {})
    _decide(command, draft)
    return draft.decided


@singledispatch
def _decide(command: ModelCommand, draft: Decision[ModelState]) -> None:
    raise TypeError(f"no rule for {type(command).__name__}")


@_decide.register
def _(command: commands.RegisterVersion, draft: Decision[ModelState]) -> None:
    trained, state = command.trained, draft.state
    if any(version.trained.run == trained.run for version in state.versions):
        return
    number, variant = len(state.versions) + 1, serving_variant(trained)
    precision = variant.precision if variant else Precision.FP32
    registered = facts.VersionRegistered(model=state.model, version=number, precision=precision, trained=trained)
    draft.record(registered, TRAINER, f"run {trained.run} succeeded")
    gate = judge(trained, command.champion, draft.rules.gate)
    if gate.passed:
        draft.record(facts.VersionPassed(model=state.model, version=number, gate=gate), REGISTRY, "all checks passed")
        return
    reason = "; ".join(check.detail for check in gate.checks if not check.passed)
    draft.record(facts.VersionRefused(model=state.model, version=number, gate=gate), REGISTRY, reason)


@_decide.register
def _(command: commands.RecordTrainingFailed, draft: Decision[ModelState]) -> None:
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
def _(command: commands.RecordDrift, draft: Decision[ModelState]) -> None:
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
def _(command: commands.SetAlias, draft: Decision[ModelState]) -> None:
    state, alias = draft.state, command.alias
    if not state.versions:
        raise UnknownModel(model=state.model)
    if alias in RESERVED_ALIASES:
        raise ReservedAlias(alias=alias)
    if command.version is not None:
        state.version(command.version)
    elif alias not in state.aliases:
        raise UnknownAlias(model=state.model, alias=alias)
    before = state.aliases.get(alias)
    if before != command.version:
        fact = facts.AliasMoved(model=state.model, alias=alias, before=before, after=command.version)
        draft.record(fact, command.actor, command.reason)
