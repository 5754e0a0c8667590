"""The rollout under way, as it is judged, and which of its verdicts are published."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.contracts.events import DeploymentChanged, Evidence, Verdict
from services.contracts.tasks import Tasks
from services.monitor.domain.comparisons import (
    UNKNOWN_VARIANTS,
    CanaryComparison,
    ComparedVariants,
    Tally,
    contribution,
    total,
)
from services.monitor.domain.deployments import DeploymentKey, EventContext, Watch
from services.monitor.domain.observations import Answer, Observation
from services.monitor.domain.verdicts import Judgement

JUDGED_STATES: Final = frozenset({"canary", "paused"})


@dataclass(frozen=True)
class LastVerdict:
    """The verdict that was published last."""

    step: int
    verdict: Verdict
    reason: str
    requests: int
    at: datetime


@dataclass(frozen=True)
class Rollout:
    """A canary under judgement. `requests` are the candidate's in this step, mirrored ones included."""

    key: DeploymentKey
    id: str
    comparison: CanaryComparison
    mirrors: bool
    step: int
    step_since: datetime
    context: EventContext
    requests: int = 0
    tally: Tally = Tally()
    variants: ComparedVariants = UNKNOWN_VARIANTS
    judging: bool = False
    """A judgement is scheduled already."""
    last_verdict: LastVerdict | None = None

    def with_observations(self, tally: Tally, answers: Sequence[Answer]) -> "Rollout":
        """After arrivals: the tally's change, and the answers that are new."""
        return replace(
            self,
            tally=self.tally + tally,
            requests=self.requests + self._in_step(answers),
            variants=self.variants.with_answers(answers, self.comparison),
        )

    def caught_up(self, observations: Sequence[Observation], tasks: Tasks) -> "Rollout":
        """At the beginning of a rollout or step: with the observations that arrived before it."""
        answers = [answer for observation in observations for answer in observation.answers]
        tally = self.tally
        if tally == Tally():
            tally = total(contribution(observation, self.comparison, tasks) for observation in observations)
        variants = self.variants.with_answers(answers, self.comparison)
        return replace(self, tally=tally, requests=self._in_step(answers), variants=variants)

    def _in_step(self, answers: Iterable[Answer]) -> int:
        return sum(answer.version == self.comparison.candidate and answer.at >= self.step_since for answer in answers)


@dataclass(frozen=True)
class RolloutVerdict:
    """A verdict as it was published."""

    key: DeploymentKey
    rollout: str
    version: int
    step: int
    verdict: Verdict
    reason: str
    requests: int
    evidence: tuple[Evidence, ...]
    at: datetime


def rollout_after(
    current: Rollout | None, watch: Watch, event: DeploymentChanged, *, at: datetime, context: EventContext
) -> Rollout | None:
    """The rollout to judge after the change, None where there is nothing to compare."""
    step = event.rollout
    if step is None or step.state not in JUDGED_STATES or watch.primary is None:
        return None
    if step.version == watch.primary.version:
        return None
    if current is None or current.id != step.rollout:
        comparison = CanaryComparison(candidate=step.version, champion=watch.primary.version, since=at)
        return Rollout(watch.key, step.rollout, comparison, event.mirror > 0, step.step, at, context)
    if current.step != step.step:
        return replace(current, step=step.step, step_since=at, requests=0, context=context)
    return current


def should_publish(rollout: Rollout, judgement: Judgement, at: datetime, repeat_seconds: float) -> bool:
    """Whether the verdict, its step or the reason of a hold differs from what was published last.

    A promotion is repeated from time to time while its numbers grow: the registry may demand more requests than it had
    at first. A rollback is published once.
    """
    last = rollout.last_verdict
    if last is None or (last.step, last.verdict) != (rollout.step, judgement.verdict):
        return True
    if judgement.verdict is Verdict.HOLD:
        return last.reason != judgement.reason
    if judgement.verdict is Verdict.ROLL_BACK:
        return False
    return rollout.requests > last.requests and (at - last.at).total_seconds() >= repeat_seconds
