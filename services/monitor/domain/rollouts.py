"""The rollout under way, as it is judged, and which of its verdicts are published."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.contracts.events import DeploymentChanged, Evidence, Verdict
from services.contracts.tasks import Tasks
from services.monitor.domain.comparisons import UNKNOWN_VARIANTS, ComparedVariants, Contest, Tally, contribution, total
from services.monitor.domain.deployments import Place, Story, Watch
from services.monitor.domain.observations import Answer, Known
from services.monitor.domain.verdicts import Judgement

JUDGED_STATES: Final = frozenset({"canary", "paused"})


@dataclass(frozen=True)
class Told:
    """The verdict that was told last."""

    step: int
    verdict: Verdict
    reason: str
    requests: int
    at: datetime


@dataclass(frozen=True)
class Rollout:
    """A canary under judgement. `requests` are the candidate's in this step, mirrored ones included."""

    place: Place
    id: str
    contest: Contest
    mirrors: bool
    step: int
    step_since: datetime
    story: Story
    requests: int = 0
    tally: Tally = Tally()
    variants: ComparedVariants = UNKNOWN_VARIANTS
    judging: bool = False
    """A judgement is scheduled already."""
    told: Told | None = None

    def with_news(self, tally: Tally, answers: Sequence[Answer]) -> "Rollout":
        """More became known: the tally's change, and the answers that are new."""
        return replace(
            self,
            tally=self.tally + tally,
            requests=self.requests + self._in_step(answers),
            variants=self.variants.with_answers(answers, self.contest),
        )

    def caught_up(self, known: Iterable[Known], tasks: Tasks) -> "Rollout":
        """At the beginning of a rollout or step: with what was known of its requests already."""
        everything = list(known)
        answers = [answer for request in everything for answer in request.answers]
        tally = self.tally
        if tally == Tally():
            tally = total(contribution(request, self.contest, tasks) for request in everything)
        variants = self.variants.with_answers(answers, self.contest)
        return replace(self, tally=tally, requests=self._in_step(answers), variants=variants)

    def _in_step(self, answers: Iterable[Answer]) -> int:
        return sum(answer.version == self.contest.candidate and answer.at >= self.step_since for answer in answers)


@dataclass(frozen=True)
class RolloutVerdict:
    """A verdict as it was told."""

    place: Place
    rollout: str
    version: int
    step: int
    verdict: Verdict
    reason: str
    requests: int
    evidence: tuple[Evidence, ...]
    at: datetime


def rollout_of(
    present: Rollout | None, watch: Watch, event: DeploymentChanged, *, at: datetime, story: Story
) -> Rollout | None:
    """The rollout to judge after the change, None where there is nothing to compare."""
    step = event.rollout
    if step is None or step.state not in JUDGED_STATES or watch.watched is None:
        return None
    if step.version == watch.watched.version:
        return None
    if present is None or present.id != step.rollout:
        contest = Contest(candidate=step.version, champion=watch.watched.version, since=at)
        return Rollout(watch.place, step.rollout, contest, event.mirror > 0, step.step, at, story)
    if present.step != step.step:
        return replace(present, step=step.step, step_since=at, requests=0, story=story)
    return present


def worth_telling(rollout: Rollout, judgement: Judgement, at: datetime, repeat_seconds: float) -> bool:
    """A verdict is news when it or its step changed, or why it holds.

    A promotion is told again from time to time while its numbers grow: the registry may ask for more requests than the
    ones it was first told with. A rollback is told once.
    """
    told = rollout.told
    if told is None or (told.step, told.verdict) != (rollout.step, judgement.verdict):
        return True
    if judgement.verdict is Verdict.HOLD:
        return told.reason != judgement.reason
    if judgement.verdict is Verdict.ROLL_BACK:
        return False
    return rollout.requests > told.requests and (at - told.at).total_seconds() >= repeat_seconds
