"""The sequential tests' error rates and stopping times, measured over many seeded streams of requests.

Streams are drawn by the joint chance that a pair is bad for the candidate alone or for the champion alone. The bad
version has 65.9% right answers against 83.6%, the recovered one 68% against 30%: measured on real models; the chance
that the weaker version alone is right (4%, 5%) is assumed.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.monitor.domain.sequential import (
    E_VALUE_LIMIT,
    Arm,
    Decision,
    Limits,
    Outcomes,
    Pairs,
    arms_e_value,
    compare,
    paired_e_value,
)

COUNTS = st.integers(0, 300)


class Streams:
    """Cumulated counts of `runs` streams of `length` pairs."""

    def __init__(self, candidate_bad: float, champion_bad: float, *, runs: int, length: int, seed: int) -> None:
        draw = np.random.default_rng(seed).random((runs, length))
        self.candidate = (draw < candidate_bad).cumsum(axis=1)
        self.champion = ((draw >= candidate_bad) & (draw < candidate_bad + champion_bad)).cumsum(axis=1)
        self.totals = np.broadcast_to(np.arange(1, length + 1), draw.shape)

    def worse(self) -> NDArray[np.float64]:
        return paired_e_value(self.candidate, self.champion, self.totals, 0.0)

    def safe(self, margin: float) -> NDArray[np.float64]:
        return paired_e_value(self.champion, self.candidate, self.totals, -margin)


def stops(e_values: NDArray[np.float64], alpha: float = 0.01) -> NDArray[np.float64]:
    """At which pair each stream first decides; infinity where it never does."""
    hit = e_values >= 1 / alpha
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, np.inf)


def test_a_bad_version_is_stopped_after_a_median_of_about_76_pairs() -> None:
    result = stops(Streams(0.217, 0.04, runs=100, length=400, seed=1).worse())
    assert 55 <= np.median(result) <= 95
    assert np.percentile(result, 90) <= 180


def test_equal_versions_are_not_stopped_in_1000_pairs() -> None:
    """The bound is alpha: at most 3 of 60 (probability of more under .3%), looked at after every pair."""
    result = stops(Streams(0.06, 0.06, runs=60, length=1000, seed=2).worse())
    assert np.isfinite(result).sum() <= 3


def test_equal_versions_are_shown_safe_within_a_few_hundred_pairs() -> None:
    result = stops(Streams(0.05, 0.05, runs=80, length=800, seed=3).safe(margin=0.08))
    assert np.median(result) <= 250
    assert np.percentile(result, 80) <= 400


def test_a_better_version_is_shown_safe_within_a_few_dozen_pairs() -> None:
    result = stops(Streams(0.05, 0.43, runs=80, length=200, seed=4).safe(margin=0.08))
    assert np.median(result) <= 35
    assert np.percentile(result, 90) <= 60


def test_a_version_that_is_worse_by_the_margin_is_rarely_called_safe() -> None:
    result = stops(Streams(0.14, 0.06, runs=60, length=1000, seed=5).safe(margin=0.08))
    assert np.isfinite(result).sum() <= 3


def test_error_rates_of_separate_requests_are_compared_at_any_split() -> None:
    """200 looks at equal versions that get 10% and then half of the traffic: at most 3 of 60 are called worse."""
    generator, false_alarms = np.random.default_rng(6), 0
    for _ in range(60):
        candidate, champion = Arm(), Arm()
        for look in range(200):
            sizes = (1, 9) if look < 100 else (5, 5)
            candidate = Arm(candidate.total + sizes[0], candidate.bad + int(generator.binomial(sizes[0], 0.05)))
            champion = Arm(champion.total + sizes[1], champion.bad + int(generator.binomial(sizes[1], 0.05)))
            if arms_e_value(candidate, champion, above=0.0) >= 100:
                false_alarms += 1
                break
    assert false_alarms <= 3


def test_a_version_that_fails_a_fifth_of_its_requests_is_stopped_within_fifty() -> None:
    generator, taken = np.random.default_rng(7), []
    for _ in range(40):
        candidate, champion = Arm(), Arm()
        while arms_e_value(candidate, champion, above=0.01) < 100:
            candidate = Arm(candidate.total + 1, candidate.bad + int(generator.random() < 0.2))
            champion = Arm(champion.total + 9, champion.bad + int(generator.binomial(9, 0.005)))
        taken.append(candidate.total)
    assert np.median(taken) <= 50


def test_no_errors_at_all_are_shown_safe_after_two_hundred_requests() -> None:
    assert arms_e_value(Arm(200, 0), Arm(1800, 0), below=0.05) >= 100
    assert arms_e_value(Arm(50, 0), Arm(450, 0), below=0.05) < 100


@pytest.mark.parametrize("bound", [-0.3, -0.08, 0.0, 0.05])
def test_a_single_pair_is_a_fair_bet_at_the_edge_of_the_null_hypothesis(bound: float) -> None:
    """Over any law with mean `bound` the e-value of one pair has expectation 1."""
    for downs in (max(0.0, -bound), 0.4):
        ups = downs + bound
        chances = (ups, downs, 1 - ups - downs)
        values = [float(paired_e_value(up, down, 1, bound)) for up, down in ((1, 0), (0, 1), (0, 0))]
        assert sum(p * value for p, value in zip(chances, values, strict=True)) == pytest.approx(1.0)


@given(first=st.tuples(COUNTS, COUNTS), second=st.tuples(COUNTS, COUNTS))
def test_the_unpaired_mixture_never_beats_the_best_alternative(first: tuple[int, int], second: tuple[int, int]) -> None:
    candidate = Arm(max(first), min(first))
    champion = Arm(max(second), min(second))
    worse = arms_e_value(candidate, champion, above=0.0)
    safe = arms_e_value(candidate, champion, below=0.05)
    assert 0 < worse <= E_VALUE_LIMIT
    assert 0 < safe <= E_VALUE_LIMIT
    assert not (worse > 1 and safe > 1 and candidate.bad * champion.total <= champion.bad * candidate.total)


def test_nothing_seen_decides_nothing() -> None:
    result = compare(Outcomes(), Limits(), paired_share=0.8)
    assert (result.e_worse, result.e_safe, result.decision) == (1.0, 1.0, Decision.UNDECIDED)


def test_a_difference_within_the_margin_counts_as_safe_even_when_it_is_shown() -> None:
    outcomes = Outcomes(pairs=Pairs(both_bad=500, candidate_bad=600, champion_bad=400, neither=8500))
    result = compare(outcomes, Limits(margin=0.08), paired_share=0.8)
    assert result.e_worse >= 100
    assert result.decision is Decision.SAFE


def test_overwhelming_evidence_stays_a_finite_number() -> None:
    outcomes = Outcomes(pairs=Pairs(candidate_bad=100_000), candidate=Arm(100_000, 100_000), champion=Arm(100_000, 0))
    result = compare(outcomes, Limits(), paired_share=0.5)
    assert result.e_worse == E_VALUE_LIMIT
    assert result.decision is Decision.WORSE


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"margin": 0.0}, {"tolerance": 0.2, "margin": 0.1}])
def test_limits_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Limits(**bad)


def test_exactly_one_side_must_be_given() -> None:
    with pytest.raises(ValueError, match="one of"):
        arms_e_value(Arm(1, 0), Arm(1, 0))
