"""What is watched, as the registry's changes come in."""

from dataclasses import replace

import pytest

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import DeploymentChanged, Role, Target
from services.monitor.domain.deployments import DeploymentKey, EventContext, Watch, WindowSeries, apply_change
from services.monitor.domain.drift import WindowVerdict

KEY = DeploymentKey("default", "topics")
CONTEXT = EventContext("e-1", "w-1", {})


def changed(generation: int, *targets: Target) -> DeploymentChanged:
    return DeploymentChanged(
        deployment="topics", model="topics", generation=generation, targets=list(targets), reason="a test"
    )


def target(version: int, role: Role = Role.PRIMARY, precision: Precision = Precision.INT8) -> Target:
    artifact = ArtifactRef(uri=f"memory://m/{version}", digest=f"{version:064x}", signer="key", size_bytes=1)
    return Target(version=version, artifact=artifact, precision=precision, role=role, weight=100)


def watched(*targets: Target, generation: int = 3) -> Watch:
    watch = apply_change(None, KEY, changed(generation, *targets), CONTEXT)
    assert watch is not None
    return watch


@pytest.mark.parametrize("generation", [2, 3])
def test_an_older_generation_and_the_same_again_change_nothing(generation: int) -> None:
    assert apply_change(watched(target(1)), KEY, changed(generation, target(2)), CONTEXT) is None


def test_while_the_same_version_serves_its_windows_go_on() -> None:
    before = replace(watched(target(1)).open_series(Precision.FP16), drift_published=True)
    after = apply_change(before, KEY, changed(4, target(1), target(2, Role.CANARY, Precision.FP32)), CONTEXT)
    assert after == replace(before, generation=4, cpu_variants={1: Precision.INT8, 2: Precision.FP32})


def test_another_version_begins_afresh_with_numbers_that_were_never_used() -> None:
    before = replace(watched(target(1)).open_series(Precision.INT8).open_series(Precision.FP16), drift_published=True)
    after = apply_change(before, KEY, changed(4, target(2)), CONTEXT)
    assert after is not None
    assert (after.version, dict(after.series), after.drift_published) == (2, {}, False)
    assert after.open_series(Precision.INT8).series == {Precision.INT8: WindowSeries(number=3)}


def test_a_series_is_opened_once() -> None:
    opened = watched(target(1)).open_series(Precision.INT8)
    assert opened.open_series(Precision.INT8) is opened


def test_requests_count_since_the_last_quiet_window() -> None:
    series = WindowSeries(number=4, since_quiet=120)
    assert series.tested(WindowVerdict.SUSPECT, 1, 80) == WindowSeries(number=4, low_windows=1, since_quiet=200)
    assert series.tested(WindowVerdict.UNTESTED, 0, 80).since_quiet == 200
    assert series.tested(WindowVerdict.QUIET, 0, 80) == WindowSeries(number=4)
