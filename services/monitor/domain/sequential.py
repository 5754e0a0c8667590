"""Is the candidate worse than the champion, or safe? Tests that may be looked at after every request.

Each test gives an e-value: a number whose expectation is at most 1 while its null hypothesis holds, whenever one looks
and stops. So crossing 1/alpha at any time has probability at most alpha (Ville's inequality). All e-values here
are functions of counts, so the order in which outcomes arrive changes nothing.

A "bad" outcome is a wrong answer, an error or a slow answer; an indicator counts one of these.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 86 (2024), for the
paired test; Wasserman, Ramdas and Balakrishnan, "Universal inference", PNAS 117 (2020), for the unpaired one;
Grunwald, de Heide and Koolen, "Safe testing", JRSS-B 86 (2024), for combining.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles: TypeAlias = NDArray[np.float64]

E_VALUE_LIMIT: Final = 1e12
"""Larger e-values are cut to this: they decide nothing more, and infinity has no JSON."""

BETS: Final = 128
"""Points of the mixture over the size of the bet."""

PRIORS: Final = ((0.5, 0.5), (0.5, 50.0))
"""Equal mixture for a rate of bad outcomes: anything (Jeffreys), or rare, as errors and slow answers mostly are."""


class Decision(StrEnum):
    WORSE = "worse"
    SAFE = "safe"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Pairs:
    """Requests that both versions answered, by who was bad."""

    both_bad: int = 0
    candidate_bad: int = 0
    champion_bad: int = 0
    neither: int = 0

    @property
    def total(self) -> int:
        return self.both_bad + self.candidate_bad + self.champion_bad + self.neither


@dataclass(frozen=True)
class Arm:
    """Requests that one version alone answered."""

    total: int = 0
    bad: int = 0


@dataclass(frozen=True)
class Outcomes:
    """All outcomes of one indicator; each request stands in `pairs` or in one of the arms, never in both."""

    pairs: Pairs = Pairs()
    candidate: Arm = Arm()
    champion: Arm = Arm()

    @property
    def observed(self) -> int:
        """The candidate's outcomes."""
        return self.pairs.total + self.candidate.total

    @property
    def candidate_rate(self) -> float:
        bad = self.pairs.both_bad + self.pairs.candidate_bad + self.candidate.bad
        return bad / self.observed if self.observed else 0.0

    @property
    def champion_rate(self) -> float:
        total = self.pairs.total + self.champion.total
        bad = self.pairs.both_bad + self.pairs.champion_bad + self.champion.bad
        return bad / total if total else 0.0


@dataclass(frozen=True)
class Limits:
    """Differences of rates, candidate minus champion: `worse` is shown above `tolerance`, `safe` below `margin`.

    Both may hold for a true difference between the two; then the candidate counts as safe.
    """

    alpha: float = 0.01
    tolerance: float = 0.0
    margin: float = 0.08

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 <= self.tolerance <= self.margin < 1 or self.margin == 0:
            raise ValueError("need 0 < alpha < 1 and 0 <= tolerance <= margin < 1 with a margin above 0")


@dataclass(frozen=True)
class SequentialResult:
    """What the outcomes of one indicator show so far."""

    outcomes: Outcomes
    e_worse: float
    e_safe: float
    limits: Limits
    decision: Decision


def compare(outcomes: Outcomes, limits: Limits, *, paired_share: float) -> SequentialResult:
    """Weigh both kinds of evidence: `paired_share` on the pairs, the rest on the arms.

    An average of e-values is an e-value whatever their dependence, so long as the share is fixed before the outcomes
    are seen: it follows from whether the rollout mirrors requests.
    """
    worse = _mixed(
        paired_share,
        paired_e_value(
            outcomes.pairs.candidate_bad, outcomes.pairs.champion_bad, outcomes.pairs.total, limits.tolerance
        ),
        arms_e_value(outcomes.candidate, outcomes.champion, above=limits.tolerance),
    )
    safe = _mixed(
        paired_share,
        paired_e_value(outcomes.pairs.champion_bad, outcomes.pairs.candidate_bad, outcomes.pairs.total, -limits.margin),
        arms_e_value(outcomes.candidate, outcomes.champion, below=limits.margin),
    )
    decision = Decision.UNDECIDED
    if safe >= 1 / limits.alpha:
        decision = Decision.SAFE
    elif worse >= 1 / limits.alpha:
        decision = Decision.WORSE
    return SequentialResult(outcomes, worse, safe, limits, decision)


def _mixed(paired_share: float, paired: Doubles, arms: float) -> float:
    return min(paired_share * float(paired) + (1 - paired_share) * arms, E_VALUE_LIMIT)


def paired_e_value(ups: ArrayLike, downs: ArrayLike, totals: ArrayLike, bound: float) -> Doubles:
    """Against "the mean of Z is at most `bound`", where Z is +1 `ups` times, -1 `downs` times, else 0, in `totals`.

    A bettor stakes a fixed share of his wealth on Z > bound at each pair; the e-value is his mean wealth over stakes
    spread evenly up to the largest he can never lose entirely. Works elementwise on arrays of counts.
    """
    up, down, total = (np.asarray(counts, dtype=np.float64)[..., None] for counts in (ups, downs, totals))
    stakes = (np.arange(BETS) + 0.5) / BETS / (1 + bound)
    log_wealth = (
        up * np.log1p(stakes * (1 - bound))
        + down * np.log1p(-stakes * (1 + bound))
        + (total - up - down) * np.log1p(-stakes * bound)
    )
    return _mean_exp(log_wealth)


def _mean_exp(logs: Doubles) -> Doubles:
    """Mean of the exponentials over the last axis, at most `E_VALUE_LIMIT`."""
    top = logs.max(axis=-1)
    log_mean = top + np.log(np.exp(logs - top[..., None]).mean(axis=-1))
    return np.asarray(np.minimum(np.exp(np.minimum(log_mean, 700.0)), E_VALUE_LIMIT))


def arms_e_value(candidate: Arm, champion: Arm, *, above: float | None = None, below: float | None = None) -> float:
    """Against "the difference of bad rates is at most `above`" or "... at least `below`"; give one of the two.

    Mixture likelihood over the largest likelihood that the null hypothesis can reach. Needs independent requests, but
    no known split: how much traffic the candidate gets may change at any time.
    """
    bound = above if above is not None else below
    if bound is None or (above is not None and below is not None):
        raise ValueError("give one of above and below")
    if not candidate.total or not champion.total:
        return 1.0
    observed = candidate.bad / candidate.total - champion.bad / champion.total
    inside = observed <= bound if above is not None else observed >= bound
    null = _best_free(candidate, champion) if inside else _best_on_line(candidate, champion, bound)
    log_e = _log_mixture(candidate) + _log_mixture(champion) - null
    return min(math.exp(min(log_e, 700.0)), E_VALUE_LIMIT)


def _log_mixture(arm: Arm) -> float:
    logs = [_log_beta(a + arm.bad, b + arm.total - arm.bad) - _log_beta(a, b) for a, b in PRIORS]
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs) / len(logs))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_likelihood(arm: Arm, rate: float) -> float:
    good = arm.total - arm.bad
    bad_part = arm.bad * math.log(rate) if arm.bad else 0.0
    return bad_part + (good * math.log1p(-rate) if good else 0.0)


def _best_free(candidate: Arm, champion: Arm) -> float:
    return sum(_log_likelihood(arm, arm.bad / arm.total) for arm in (candidate, champion))


def _best_on_line(candidate: Arm, champion: Arm, difference: float) -> float:
    """Largest log likelihood with the candidate's rate `difference` above the champion's: concave, so by bisection."""

    def slope(rate: float) -> float:
        return _slope(candidate, rate + difference) + _slope(champion, rate)

    tiny = 1e-12
    low, high = max(0.0, -difference) + tiny, 1 - max(0.0, difference) - tiny
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return _log_likelihood(candidate, low + difference) + _log_likelihood(champion, low)


def _slope(arm: Arm, rate: float) -> float:
    return arm.bad / rate - (arm.total - arm.bad) / (1 - rate)
