"""Burn rates, intervals and quantiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.monitor.domain.slo import (
    BUCKETS,
    Burn,
    BurnPolicy,
    Counts,
    Indicator,
    Objective,
    bucket_of,
    burn_rate,
    burning,
    quantile_ms,
    wilson,
)

ERRORS = Objective(Indicator.ERRORS, 0.99)
LATENCY = Objective(Indicator.LATENCY, 0.95)


def test_a_burn_rate_of_one_uses_exactly_the_budget() -> None:
    assert burn_rate(Counts(requests=1000, errors=10), ERRORS) == pytest.approx(1.0)
    assert burn_rate(Counts(requests=110, errors=10, slow=50), LATENCY) == pytest.approx(10.0)
    assert burn_rate(Counts(), ERRORS) == 0


@pytest.mark.parametrize(
    ("long", "short", "expected"),
    [
        (Counts(requests=1000, errors=200), Counts(requests=100, errors=30), Burn.BREACHED),
        (Counts(requests=1000, errors=200), Counts(requests=100, errors=5), Burn.BETWEEN),
        (Counts(requests=1000, errors=200), Counts(requests=100, errors=1), Burn.RECOVERED),
        (Counts(requests=1000, errors=20), Counts(requests=100, errors=90), Burn.BETWEEN),
        (Counts(requests=49, errors=49), Counts(requests=49, errors=49), Burn.BETWEEN),
    ],
)
def test_only_a_burn_that_matters_and_goes_on_is_a_breach(long: Counts, short: Counts, expected: Burn) -> None:
    assert burning(long, short, ERRORS, BurnPolicy()) is expected


@given(st.lists(st.floats(0.01, 15_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_within_six_percent(latencies: list[float], share: float) -> None:
    histogram: dict[int, int] = {}
    for latency in latencies:
        histogram[bucket_of(latency)] = histogram.get(bucket_of(latency), 0) + 1
    exact = float(np.quantile(latencies, share, method="inverted_cdf"))
    assert quantile_ms(histogram, share) == pytest.approx(max(exact, 0.1), rel=0.06)


def test_buckets_are_bounded() -> None:
    assert bucket_of(0.0) == 0
    assert bucket_of(1e9) == BUCKETS - 1
    assert quantile_ms({}, 0.5) == 0


def test_the_score_interval_matches_the_textbook() -> None:
    interval = wilson(81, 263)
    assert [interval.low, interval.high] == pytest.approx([0.2553, 0.3662], abs=5e-4)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_counts_add_up() -> None:
    merged = Counts(1, 0, 1, 1, 1, {3: 1}) + Counts(2, 1, 0, 1, 0, {3: 1, 4: 1})
    assert merged == Counts(3, 1, 1, 2, 1, {3: 2, 4: 1})


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_objective_of_all_or_nothing_is_refused(share: float) -> None:
    with pytest.raises(ValueError):
        Objective(Indicator.ERRORS, share)
