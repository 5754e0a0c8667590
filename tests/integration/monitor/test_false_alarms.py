"""The false-alarm rate at the sizes of production: baselines of 500 rows, windows of 200, 200 permutations."""

import pytest

from tests.unit.monitor.traffic import measure_false_alarms


@pytest.mark.slow
def test_unchanged_traffic_raises_no_more_false_alarms_than_stated() -> None:
    """500 windows over 25 baselines: at most 13 at or below .01 (probability of more: under .1%), at most one alarm.
    Over 9,500 windows and 325 baselines it was 1.0% and one alarm."""
    measured = measure_false_alarms(baselines=25, windows=20, baseline_rows=500, window_rows=200)
    assert measured.windows == 500
    assert measured.low_windows <= 13
    assert measured.alarms <= 1
