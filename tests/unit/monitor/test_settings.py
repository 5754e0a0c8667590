"""Settings that contradict each other are refused at the start."""

import pytest

from services.kit.core.settings import BadSettings
from services.monitor.app import policy_of
from services.monitor.settings import MonitorSettings


def test_the_defaults_are_the_measured_ones() -> None:
    policy = policy_of(MonitorSettings.load())
    assert (policy.drift.window_rows, policy.drift.alpha, policy.drift.consecutive) == (200, 0.01, 2)
    assert policy.judging.correctness.alpha == 0.01
    assert policy.judging.require_labels


@pytest.mark.parametrize(
    ("name", "value"),
    [("PERMUTATIONS", "50"), ("CORRECTNESS_MARGIN", "0"), ("ERRORS_TOLERANCE", "0.5"), ("WINDOW_ROW", "100")],
)
def test_a_setting_that_makes_no_sense_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MILLRACE_MONITOR_{name}", value)
    with pytest.raises(BadSettings):
        policy_of(MonitorSettings.load())
