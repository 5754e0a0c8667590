"""What the monitor watches: one version of a deployment for drift, and the rollout under way, if there is one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import DeploymentChanged, Evidence, Role, Verdict
from services.contracts.tasks import Tasks
from services.contracts.tasks.records import InferenceRecord
from services.monitor.domain.drift import DriftTest, WindowVerdict
from services.monitor.domain.ledger import (
    UNKNOWN_VARIANTS,
    Answer,
    ComparedVariants,
    Contest,
    Known,
    Tally,
    contribution,
    total,
)
from services.monitor.domain.verdicts import Judgement

JUDGED_STATES: Final = frozenset({"canary", "paused"})


@dataclass(frozen=True)
class Place:
    """A deployment of a tenant."""

    tenant: str
    deployment: str


@dataclass(frozen=True)
class Story:
    """The event that opened the present chapter, the story it belongs to, and its trace."""

    id: str
    story: str
    trace: dict[str, str]


@dataclass(frozen=True)
class Watched:
    """The version that serves, and the artifact that holds its baselines, one a variant."""

    version: int
    artifact: ArtifactRef


@dataclass(frozen=True)
class WindowSeries:
    """The windows of one variant, one after another. `number` is the one being filled, `answered` its requests."""

    number: int
    answered: int = 0
    low_windows: int = 0
    """Windows in a row at or below alpha."""
    since_quiet: int = 0
    """Requests in the tested windows since the last quiet one."""

    def tested(self, verdict: WindowVerdict, low_windows: int, answered: int) -> "WindowSeries":
        """After a window of `answered` requests got its verdict."""
        since_quiet = 0 if verdict is WindowVerdict.QUIET else self.since_quiet + answered
        return replace(self, low_windows=low_windows, since_quiet=since_quiet)


@dataclass(frozen=True)
class Watch:
    """A deployment that is watched. Its windows are numbered across all variants, in the order they were opened."""

    place: Place
    model: str
    generation: int
    watched: Watched | None
    story: Story
    cpu_variants: Mapping[int, Precision] = field(default_factory=dict)
    """What a CPU serves of each version."""
    series: Mapping[Precision, WindowSeries] = field(default_factory=dict)
    """Of the watched version, by variant."""
    next_window: int = 1
    told: bool = False
    """The drift of this version has been told: once is enough."""

    @property
    def version(self) -> int | None:
        """The one that is watched."""
        return self.watched.version if self.watched is not None else None

    def variant_of(self, record: InferenceRecord) -> Precision | None:
        """What answered. A record that does not say it counts for what a CPU serves of its version; None where the
        deployment has no such version."""
        return record.variant or self.cpu_variants.get(record.version)

    def open_series(self, variant: Precision) -> "Watch":
        """With a window that this variant's requests fill."""
        if variant in self.series:
            return self
        return replace(self.with_series(variant, WindowSeries(self.next_window)), next_window=self.next_window + 1)

    def with_series(self, variant: Precision, series: WindowSeries) -> "Watch":
        return replace(self, series={**self.series, variant: series})


@dataclass(frozen=True)
class ClosedWindow:
    """A full window; `verdict` and `test` are None until it has been tested."""

    place: Place
    number: int
    version: int
    variant: Precision
    rows: int
    answered: int
    opened: datetime
    closed: datetime
    verdict: WindowVerdict | None = None
    test: DriftTest | None = None


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


def followed(watch: Watch | None, place: Place, event: DeploymentChanged, story: Story) -> Watch | None:
    """The watch after the change; None when the event is older than what is known.

    When another version serves, its watch begins afresh: nothing of the version before counts for or against it.
    """
    if watch is not None and event.generation <= watch.generation:
        return None
    primary = next((target for target in event.targets if target.role is Role.PRIMARY), None)
    watched = Watched(primary.version, primary.artifact) if primary is not None else None
    cpu_variants = {target.version: target.precision for target in event.targets}
    if watch is not None and watch.version == (watched.version if watched is not None else None):
        return replace(
            watch, generation=event.generation, model=event.model, watched=watched, cpu_variants=cpu_variants
        )
    return Watch(
        place=place,
        model=event.model,
        generation=event.generation,
        watched=watched,
        story=story,
        cpu_variants=cpu_variants,
        next_window=watch.next_window if watch is not None else 1,
    )


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
