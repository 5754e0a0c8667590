"""A candidate against its champion, counted over requests.

Answers, mirrored answers and feedback arrive in any order and more than once. So `contribution` is a pure function of
one observation, and the tally changes by its value after the arrival minus its value before; a repetition changes
nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final

from services.contracts.artifact import Precision
from services.contracts.tasks import Tasks
from services.monitor.domain.observations import HALF, Answer, Observation, quality
from services.monitor.domain.sequential import Arm, Outcomes, Pairs


@dataclass(frozen=True)
class CanaryComparison:
    """Two versions that are compared, from the moment the first traffic went to the candidate."""

    candidate: int
    champion: int
    since: datetime


@dataclass(frozen=True)
class ComparedVariants:
    """Which variants of either version answered since the comparison began."""

    candidate: frozenset[Precision] = frozenset()
    champion: frozenset[Precision] = frozenset()

    def with_answers(self, answers: Sequence[Answer], comparison: CanaryComparison) -> "ComparedVariants":
        def answered(version: int) -> frozenset[Precision]:
            return frozenset(
                answer.variant
                for answer in answers
                if answer.version == version and answer.variant is not None and answer.at >= comparison.since
            )

        return ComparedVariants(
            self.candidate | answered(comparison.candidate), self.champion | answered(comparison.champion)
        )


UNKNOWN_VARIANTS: Final = ComparedVariants()


@dataclass(frozen=True)
class Tally:
    """Outcomes of a comparison so far."""

    correctness: Outcomes = Outcomes()
    errors: Outcomes = Outcomes()
    latency: Outcomes = Outcomes()

    def __add__(self, other: "Tally") -> "Tally":
        return _combined(self, other, 1)

    def __sub__(self, other: "Tally") -> "Tally":
        return _combined(self, other, -1)


def contribution(observation: Observation, comparison: CanaryComparison, tasks: Tasks) -> Tally:
    """What the request adds to the tally: one outcome, however many items it holds.

    Answered by both versions it is a pair; by one alone it counts for that arm, if a client saw the answer. A request
    on which a version failed says nothing of correctness: the failure counts under errors. Latency is compared on
    what clients saw alone: mirrored work runs behind other work.
    """
    answers = {answer.version: answer for answer in observation.answers if answer.at >= comparison.since}
    candidate, champion = answers.get(comparison.candidate), answers.get(comparison.champion)
    return Tally(
        correctness=_correctness(candidate, champion, observation, tasks),
        errors=_outcomes(candidate, champion, lambda answer: not answer.ok),
        latency=Outcomes(candidate=_slow(candidate), champion=_slow(champion)),
    )


def tally_change(before: Observation, after: Observation, comparison: CanaryComparison, tasks: Tasks) -> Tally:
    """What an arrival adds to the tally, from the observation before and after it."""
    return contribution(after, comparison, tasks) - contribution(before, comparison, tasks)


def _correctness(candidate: Answer | None, champion: Answer | None, observation: Observation, tasks: Tasks) -> Outcomes:
    """Of a pair whichever was the better one counts, by however much; below half an answer was wrong."""
    if any(answer is not None and not answer.ok for answer in (candidate, champion)):
        return Outcomes()
    ours = quality(candidate, observation, tasks) if candidate is not None else None
    theirs = quality(champion, observation, tasks) if champion is not None else None
    if ours is None or theirs is None:
        return Outcomes(candidate=_graded(candidate, ours), champion=_graded(champion, theirs))
    if ours != theirs:
        return Outcomes(pairs=Pairs(candidate_bad=int(ours < theirs), champion_bad=int(ours > theirs)))
    return Outcomes(pairs=Pairs(both_bad=int(ours < HALF), neither=int(ours >= HALF)))


def _graded(answer: Answer | None, grade: float | None) -> Arm:
    return Arm() if grade is None else _alone(answer, lambda _: grade < HALF)


def total(tallies: Iterable[Tally]) -> Tally:
    return sum(tallies, Tally())


def _outcomes(candidate: Answer | None, champion: Answer | None, bad: Callable[[Answer], bool]) -> Outcomes:
    if candidate is not None and champion is not None:
        match bad(candidate), bad(champion):
            case True, True:
                return Outcomes(pairs=Pairs(both_bad=1))
            case True, False:
                return Outcomes(pairs=Pairs(candidate_bad=1))
            case False, True:
                return Outcomes(pairs=Pairs(champion_bad=1))
            case _:
                return Outcomes(pairs=Pairs(neither=1))
    return Outcomes(candidate=_alone(candidate, bad), champion=_alone(champion, bad))


def _alone(answer: Answer | None, bad: Callable[[Answer], bool]) -> Arm:
    if answer is None or answer.mirrored:
        return Arm()
    return Arm(total=1, bad=int(bad(answer)))


def _slow(answer: Answer | None) -> Arm:
    if answer is None or answer.mirrored or not answer.ok:
        return Arm()
    return Arm(total=1, bad=int(answer.slow))


def _combined(left: Tally, right: Tally, sign: int) -> Tally:
    return Tally(*(_combined_outcomes(getattr(left, f.name), getattr(right, f.name), sign) for f in fields(Tally)))


def _combined_outcomes(left: Outcomes, right: Outcomes, sign: int) -> Outcomes:
    pairs, candidate, champion = left.pairs, left.candidate, left.champion
    return Outcomes(
        pairs=Pairs(
            both_bad=pairs.both_bad + sign * right.pairs.both_bad,
            candidate_bad=pairs.candidate_bad + sign * right.pairs.candidate_bad,
            champion_bad=pairs.champion_bad + sign * right.pairs.champion_bad,
            neither=pairs.neither + sign * right.pairs.neither,
        ),
        candidate=_combined_arm(candidate, right.candidate, sign),
        champion=_combined_arm(champion, right.champion, sign),
    )


def _combined_arm(left: Arm, right: Arm, sign: int) -> Arm:
    return Arm(total=left.total + sign * right.total, bad=left.bad + sign * right.bad)
