"""What one request says about a candidate and its champion, once all that is known of it is laid together.

Answers, mirrored answers and labels arrive in any order and more than once. The ledger never keeps running state of
its own: `contribution` is a function of what is known of a request, so news changes the tally by after - before, and
news that was known already changes it by nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime

from services.monitor.domain.sequential import Arm, Outcomes, Pairs


@dataclass(frozen=True)
class Answer:
    """One version's answer to one request. `mirrored`: no client saw it. `label` is None where it failed."""

    version: int
    mirrored: bool
    at: datetime
    ok: bool
    slow: bool
    label: str | None


@dataclass(frozen=True)
class Known:
    """All that is known of one request. `truth` is the label that feedback gave it; the first one counts."""

    answers: tuple[Answer, ...] = ()
    truth: str | None = None

    def with_answer(self, answer: Answer) -> "Known":
        """The first answer of each version counts."""
        if any(known.version == answer.version for known in self.answers):
            return self
        return replace(self, answers=(*self.answers, answer))

    def with_truth(self, truth: str) -> "Known":
        return self if self.truth is not None else replace(self, truth=truth)


@dataclass(frozen=True)
class Contest:
    """Two versions that are compared, from the moment the first traffic went to the candidate."""

    candidate: int
    champion: int
    since: datetime


@dataclass(frozen=True)
class Tally:
    """Outcomes of a contest so far."""

    correctness: Outcomes = Outcomes()
    errors: Outcomes = Outcomes()
    latency: Outcomes = Outcomes()

    def __add__(self, other: "Tally") -> "Tally":
        return _combined(self, other, 1)

    def __sub__(self, other: "Tally") -> "Tally":
        return _combined(self, other, -1)


def contribution(known: Known, contest: Contest) -> Tally:
    """What the request adds to the contest.

    Answered by both versions it is a pair; by one alone it counts for that arm, if a client saw the answer. A request
    on which a version failed says nothing of correctness: the failure counts under errors. Latency is compared on
    what clients saw alone: mirrored work runs behind other work.
    """
    answers = {answer.version: answer for answer in known.answers if answer.at >= contest.since}
    candidate, champion = answers.get(contest.candidate), answers.get(contest.champion)
    labelled = known.truth is not None and all(answer.ok for answer in (candidate, champion) if answer is not None)
    return Tally(
        correctness=_outcomes(candidate, champion, lambda answer: answer.label != known.truth)
        if labelled
        else Outcomes(),
        errors=_outcomes(candidate, champion, lambda answer: not answer.ok),
        latency=Outcomes(candidate=_slow(candidate), champion=_slow(champion)),
    )


def news(before: Known, after: Known, contest: Contest) -> Tally:
    """What to add to the tally when more became known of a request."""
    return contribution(after, contest) - contribution(before, contest)


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
