"""The drift test's error rates, measured on traffic whose truth is known, and its exactness."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.monitor.domain.drift import (
    DriftPolicy,
    Floats,
    mmd_test,
    rbf_kernel,
    seed_of,
    thinned,
    verdict_of,
)
from tests.unit.monitor.traffic import Traffic, measure_false_alarms


@pytest.mark.slow
def test_unchanged_windows_raise_false_alarms_no_more_often_than_alpha() -> None:
    """1,000 small windows over 50 baselines: at most 21 at or below .01 (probability of more: under .1%), and at most
    one alarm of two in a row. At the sizes of production: tests/integration/monitor/test_false_alarms.py."""
    measured = measure_false_alarms(baselines=50, windows=20, baseline_rows=120, window_rows=80)
    assert measured.low_windows <= 21
    assert measured.alarms <= 1


def test_p_values_of_unchanged_windows_are_spread_evenly() -> None:
    p_values = []
    for number in range(150):
        traffic = Traffic(seed=1000 + number)
        p_values.append(mmd_test(traffic.rows(120), traffic.rows(80), permutations=200, seed=number).p_value)
    below = [float(np.mean(np.array(p_values) <= level)) for level in (0.1, 0.5, 0.9)]
    assert below == pytest.approx([0.1, 0.5, 0.9], abs=0.11)


def test_traffic_that_shifted_by_three_quarters_is_found_in_every_window() -> None:
    traffic = Traffic(seed=1)
    baseline = traffic.rows(300)
    p_values = [mmd_test(baseline, traffic.rows(200, 0.75), permutations=200, seed=n).p_value for n in range(20)]
    assert max(p_values) <= 0.01


def test_power_grows_with_the_share_of_shifted_traffic() -> None:
    traffic = Traffic(seed=2)
    baseline = traffic.rows(300)

    def power(share: float) -> float:
        hits = [mmd_test(baseline, traffic.rows(200, share), permutations=200, seed=n).p_value for n in range(20)]
        return float(np.mean(np.array(hits) <= 0.01))

    fifth, half = power(0.2), power(0.5)
    assert fifth <= 0.3
    assert half >= 0.6


def test_the_p_value_counts_the_observed_assignment_too() -> None:
    far = np.eye(16, dtype=np.float32)
    test = mmd_test(far[:8], -far[8:] * 5, permutations=199, seed=0)
    assert test.p_value >= 1 / 200


def test_rows_that_are_all_alike_never_alarm() -> None:
    rows = np.ones((40, 8), dtype=np.float32)
    assert mmd_test(rows, rows[:10], permutations=200, seed=0).p_value == 1.0


def test_the_same_seed_gives_the_same_result() -> None:
    traffic = Traffic(seed=3)
    baseline, window = traffic.rows(60), traffic.rows(40)
    first, second = (mmd_test(baseline, window, permutations=200, seed=5) for _ in range(2))
    assert first == second
    assert seed_of("m", 1, 2) == seed_of("m", 1, 2) != seed_of("m", 2, 1)


def test_the_statistic_is_the_unbiased_estimate_of_the_paper() -> None:
    traffic = Traffic(seed=4)
    baseline, window = traffic.rows(20), traffic.rows(12)
    kernel, _ = rbf_kernel(np.concatenate([baseline, window]))
    inside, outside, across = kernel[20:, 20:], kernel[:20, :20], kernel[:20, 20:]
    expected = inside.sum() / (12 * 11) + outside.sum() / (20 * 19) - 2 * across.mean()
    test = mmd_test(baseline, window, permutations=200, seed=0)
    assert test.statistic == pytest.approx(float(expected), abs=1e-5)


def test_the_bandwidth_is_the_median_distance() -> None:
    rows = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    _, bandwidth = rbf_kernel(rows)
    assert bandwidth == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("baseline", "window"),
    [
        (np.ones((7, 4)), np.ones((20, 4))),
        (np.ones((20, 4)), np.ones((20, 5))),
        (np.ones((20, 4)), np.full((20, 4), np.nan)),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(baseline: Floats, window: Floats) -> None:
    with pytest.raises(ValueError):
        mmd_test(baseline.astype(np.float32), window.astype(np.float32), permutations=200, seed=0)


def test_two_low_windows_in_a_row_are_drift_and_one_is_a_suspicion() -> None:
    policy = DriftPolicy()
    low, verdicts = 0, []
    for p_value in (0.3, 0.01, 0.4, 0.005, 0.01, 0.005, 0.2):
        verdict, low = verdict_of(p_value, low, policy)
        verdicts.append(verdict.value)
    assert verdicts == ["quiet", "suspect", "quiet", "suspect", "drifted", "drifted", "quiet"]


def test_a_policy_that_could_never_alarm_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot reach"):
        DriftPolicy(permutations=98, alpha=0.01)


@given(rows=st.integers(1, 60), limit=st.integers(1, 40))
def test_thinning_keeps_order_and_the_limit(rows: int, limit: int) -> None:
    given_rows = np.arange(rows, dtype=np.float32)[:, None]
    thin = thinned(given_rows, limit)[:, 0]
    assert len(thin) == min(rows, limit)
    assert (np.diff(thin) > 0).all()
