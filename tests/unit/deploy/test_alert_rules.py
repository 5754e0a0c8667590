"""The alerts on counters, evaluated over time by Prometheus' own promtool where it is installed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.unit.deploy.files import DEPLOY
from tests.unit.deploy.test_watching import ALERTS

RULES: Final = DEPLOY / "prometheus/alerts.yaml"
PROMTOOL: Final = shutil.which("promtool")
INCREASE: Final = re.compile(r"\bincrease\((?P<series>\w+(?:\{[^}]*\})?)\[(?P<window>\d+m)\]\)")
ON_COUNTERS: Final = {alert["alert"]: alert["expr"] for alert in ALERTS if INCREASE.search(alert["expr"])}
OVER_TIME: Final = {
    # Samples a minute apart (`_` none, `stale` the end of a process), and how many alerts there are at some minutes.
    "the first event of a series": ("_x30 1x60", {29: 0, 30: 1, 44: 1, 60: 0}),
    "a later event": ("1x29 2x60", {29: 0, 31: 1, 43: 1, 60: 0}),
    "the first event after a restart": ("3x19 stale _x9 1x60", {19: 0, 29: 0, 30: 1, 44: 1, 60: 0}),
    "the first event after a restart, soon after another": ("_x20 1x5 stale _x9 1x60", {22: 1, 42: 1, 60: 0}),
    "an event of a series that was set to 0 ahead": ("0x29 1x60", {29: 0, 31: 1, 60: 0}),
    "no event": ("0x90", {10: 0, 60: 0}),
}

promtool: Final = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (it comes with Prometheus)")
each_alert: Final = pytest.mark.parametrize("alert", ON_COUNTERS)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False)


def evaluated(series: str, values: str, expression: str, firing: dict[int, int], folder: Path) -> str:
    """What promtool finds wrong: by minute, how many alerts the expression should give."""
    samples = [
        {"expr": f"count({expression}) or vector(0)", "eval_time": f"{minute}m", "exp_samples": [_sample(count)]}
        for minute, count in firing.items()
    ]
    test = {"interval": "1m", "input_series": [{"series": series, "values": values}], "promql_expr_test": samples}
    path = folder / "rules.test.yaml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    result = run("test", "rules", path)
    return result.stdout + result.stderr if result.returncode else ""


def _sample(count: int) -> dict[str, Any]:
    return {"labels": "{}", "value": count}


def test_every_alert_on_a_counter_counts_the_first_event_of_a_series_too() -> None:
    assert set(ON_COUNTERS) == {"TrainingFailed", "RolloutRolledBack", "RolloutPaused", "DriftDetected", "DeadLetters"}
    for name, expression in ON_COUNTERS.items():
        for match in INCREASE.finditer(expression):
            series, window = match["series"], match["window"]
            newborn = f"({series} unless {series} offset {window})"
            assert newborn in re.sub(r"\s+", " ", expression), name


@promtool
def test_prometheus_accepts_the_rules() -> None:
    result = run("check", "rules", RULES)
    assert result.returncode == 0, result.stdout + result.stderr


@promtool
@pytest.mark.parametrize("case", OVER_TIME)
@each_alert
def test_an_event_alerts_once_for_as_long_as_the_window(alert: str, case: str, tmp_path: Path) -> None:
    values, firing = OVER_TIME[case]
    match = INCREASE.search(ON_COUNTERS[alert])
    assert match is not None
    assert evaluated(match["series"], values, ON_COUNTERS[alert], firing, tmp_path) == ""


@promtool
@each_alert
def test_increase_alone_would_miss_the_first_event(alert: str, tmp_path: Path) -> None:
    """The control: the same samples and times, without the half that counts newborn series."""
    match = INCREASE.search(ON_COUNTERS[alert])
    assert match is not None
    values, firing = OVER_TIME["the first event of a series"]
    assert "got:" in evaluated(match["series"], values, f"sum({match[0]}) > 0", firing, tmp_path)
