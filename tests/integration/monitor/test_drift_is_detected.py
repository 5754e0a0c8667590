"""From batches of requests to `drift.detected`."""

import pytest

from services.contracts.artifact import Precision
from services.contracts.errors import Unavailable
from services.contracts.events import DriftDetected
from services.monitor.domain.deployments import DeploymentKey
from services.monitor.domain.drift import WindowVerdict
from services.monitor.handlers.health import get_health
from services.monitor.handlers.ingest import on_inference_logged
from services.monitor.handlers.windows import WINDOW_TIMER, list_windows, run_drift_test
from tests.integration.monitor.conftest import DEPLOYMENT, Monitor

KEY = DeploymentKey("default", DEPLOYMENT)


async def verdicts(monitor: Monitor) -> list[str]:
    """Of the tested windows, the oldest first."""
    windows = await list_windows(KEY, 100, monitor.ports)
    return [window.verdict.value for window in reversed(windows) if window.verdict is not None]


async def test_unchanged_traffic_stays_quiet(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 350)
    await monitor.pass_time(1)
    assert await verdicts(monitor) == ["quiet"] * 3
    assert await monitor.outbox(DriftDetected) == []


async def test_drift_is_published_after_two_windows_of_shifted_traffic_and_only_once(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 130)
    await monitor.answer(1, 470, shift=2.0)
    await monitor.pass_time(1)
    assert (await verdicts(monitor))[0] == "quiet"
    assert (await verdicts(monitor))[-1] == "drifted"
    (detected,) = await monitor.outbox(DriftDetected)
    event = detected.event
    assert (event.model, event.version, event.test, event.consecutive) == ("topics", 1, "mmd-rbf", 2)
    assert event.p_value <= event.alpha == 0.01
    assert event.baseline_rows == 200
    assert event.window.rows == 100
    assert event.requests_since_quiet == 100 * (event.window.number - 1)
    assert event.requests_since_quiet <= 300


async def test_requests_that_were_not_sampled_count_since_the_last_quiet_window(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 100)
    await monitor.log(*[monitor.record(1) for _ in range(30)])
    await monitor.answer(1, 200, shift=2.0)
    await monitor.pass_time(1)
    (detected,) = await monitor.outbox(DriftDetected)
    assert detected.event.requests_since_quiet == 230


async def test_a_batch_delivered_twice_changes_nothing(monitor: Monitor) -> None:
    await monitor.serve(1)
    rows = monitor.inputs.rows(60)
    envelope = await monitor.log(*[monitor.record(1, row=row) for row in rows])
    await on_inference_logged([envelope, envelope], monitor.ports)
    again = monitor.envelope(envelope.event)
    await on_inference_logged([again], monitor.ports)
    async with monitor.store.reading() as tx:
        watch = await tx.watch(KEY)
        assert watch is not None
        assert watch.series[Precision.INT8].answered == 60
        assert len(await tx.samples(KEY, 1)) == 60


async def test_another_version_begins_afresh(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 90, shift=2.0)
    await monitor.serve(2)
    await monitor.answer(2, 100)
    await monitor.pass_time(1)
    windows = await list_windows(KEY, 10, monitor.ports)
    assert [(window.version, window.verdict) for window in windows] == [(2, WindowVerdict.QUIET)]


async def test_a_move_to_another_model_begins_afresh_although_the_version_has_the_same_number(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 190, shift=2.0)
    monitor.model = "essays"
    await monitor.serve(1)
    assert await get_health(KEY, monitor.ports) == []
    await monitor.answer(1, 100)
    monitor.model = "topics"
    await monitor.answer(1, 100, shift=2.0)  # what the former model still answers
    await monitor.pass_time(1)
    assert await verdicts(monitor) == ["quiet"]
    (health,) = await get_health(KEY, monitor.ports)
    assert health.counts.requests == 100


async def test_drift_is_published_again_for_the_next_version(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 200, shift=2.0)
    await monitor.pass_time(1)
    await monitor.serve(2)
    await monitor.answer(2, 200, shift=2.0)
    await monitor.pass_time(1)
    assert [detected.event.version for detected in await monitor.outbox(DriftDetected)] == [1, 2]


async def test_a_canary_does_not_disturb_the_windows_of_the_version_that_serves(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 60)
    await monitor.serve(1, canary=2)
    await monitor.answer(2, 60, shift=2.0)
    await monitor.answer(1, 40)
    await monitor.serve(1)
    await monitor.pass_time(1)
    assert await verdicts(monitor) == ["quiet"]


async def test_an_older_generation_is_passed_over(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.serve(2)
    monitor.generation = 0
    await monitor.serve(1)
    async with monitor.store.reading() as tx:
        watch = await tx.watch(KEY)
    assert watch is not None
    assert watch.version == 2


async def test_while_the_store_is_away_windows_wait_and_are_then_tested_in_order(monitor: Monitor) -> None:
    await monitor.serve(1)
    monitor.baselines.away = Unavailable(what="the artifact store")
    await monitor.answer(1, 100)
    await monitor.answer(1, 200, shift=2.0)
    await monitor.pass_time(2)
    assert await verdicts(monitor) == []
    monitor.baselines.away = None
    await monitor.pass_time(2)
    assert await verdicts(monitor) == ["quiet", "suspect", "drifted"]


async def test_a_window_is_not_tested_before_the_one_that_closed_first(monitor: Monitor) -> None:
    """Whichever timer comes first: low windows are counted in a row, and a quiet one between them ends the row."""
    await monitor.serve(1)
    await monitor.answer(1, 100, shift=2.0)
    await monitor.answer(1, 100)
    await monitor.answer(1, 100, shift=2.0)
    by_window = {timer.payload["number"]: timer for timer in await monitor.timers(WINDOW_TIMER)}
    assert sorted(by_window) == [1, 2, 3]
    for number in (3, 2, 3):
        await run_drift_test(by_window[number], monitor.ports)
        assert await verdicts(monitor) == []
    await run_drift_test(by_window[1], monitor.ports)
    await run_drift_test(by_window[3], monitor.ports)
    assert await verdicts(monitor) == ["suspect"]
    await monitor.pass_time(1)  # the timers of those that had to wait are still set
    assert await verdicts(monitor) == ["suspect", "quiet", "suspect"]
    assert await monitor.outbox(DriftDetected) == []


async def test_without_a_baseline_windows_are_untested_and_never_alarm(monitor: Monitor) -> None:
    await monitor.serve(3)
    await monitor.answer(3, 200, shift=2.0)
    await monitor.pass_time(1)
    assert await verdicts(monitor) == ["untested", "untested"]
    assert await monitor.outbox(DriftDetected) == []


async def windows_of(monitor: Monitor) -> list[tuple[int, str, str]]:
    """Number, variant and verdict of the tested windows, the oldest first."""
    windows = await list_windows(KEY, 100, monitor.ports)
    return [(one.number, one.variant.value, one.verdict.value) for one in reversed(windows) if one.verdict is not None]


async def test_two_variants_of_a_version_fill_windows_of_their_own(monitor: Monitor) -> None:
    await monitor.serve(1)
    monitor.baselines.by_variant[1, Precision.FP16] = monitor.inputs.rows(200)
    for _ in range(4):
        await monitor.answer(1, 25, variant=Precision.INT8)
        await monitor.answer(1, 25, variant=Precision.FP16)
        assert await windows_of(monitor) == []
    await monitor.pass_time(1)
    assert await windows_of(monitor) == [(1, "int8", "quiet"), (2, "fp16", "quiet")]
    async with monitor.store.reading() as tx:
        watch = await tx.watch(KEY)
    assert watch is not None
    assert {variant: series.number for variant, series in watch.series.items()} == {
        Precision.INT8: 3,
        Precision.FP16: 4,
    }


@pytest.mark.parametrize("own_baseline", [True, False])
async def test_a_variant_that_embeds_otherwise_has_not_drifted_from_its_own_baseline(
    monitor: Monitor, own_baseline: bool
) -> None:
    """The control is the same traffic against the other variant's baseline, from which it does stand apart."""
    await monitor.serve(1)
    baselines = monitor.baselines.by_variant
    baselines[1, Precision.FP16] = monitor.inputs.rows(200, shift=2.0) if own_baseline else baselines[1, Precision.INT8]
    await monitor.answer(1, 200, shift=2.0, variant=Precision.FP16)
    await monitor.answer(1, 200, variant=Precision.INT8)
    await monitor.pass_time(1)
    verdicts_of_fp16 = [verdict for _, variant, verdict in await windows_of(monitor) if variant == "fp16"]
    drifts = [(one.event.version, one.event.variant) for one in await monitor.outbox(DriftDetected)]
    if own_baseline:
        assert (verdicts_of_fp16, drifts) == (["quiet", "quiet"], [])
    else:
        assert (verdicts_of_fp16, drifts) == (["suspect", "drifted"], [(1, Precision.FP16)])


async def test_low_windows_of_two_variants_are_not_in_a_row(monitor: Monitor) -> None:
    await monitor.serve(1)
    monitor.baselines.by_variant[1, Precision.FP16] = monitor.inputs.rows(200)
    for variant in (Precision.INT8, Precision.FP16):
        await monitor.answer(1, 100, shift=2.0, variant=variant)
        await monitor.pass_time(1)
    assert [verdict for _, _, verdict in await windows_of(monitor)] == ["suspect", "suspect"]
    assert await monitor.outbox(DriftDetected) == []
    await monitor.answer(1, 100, shift=2.0, variant=Precision.FP16)
    await monitor.pass_time(1)
    (detected,) = await monitor.outbox(DriftDetected)
    assert (detected.event.variant, detected.event.requests_since_quiet) == (Precision.FP16, 200)
    await monitor.answer(1, 100, shift=2.0, variant=Precision.INT8)
    await monitor.pass_time(1)
    assert len(await monitor.outbox(DriftDetected)) == 1, "one retraining a version, whichever variant drifted first"


async def test_a_variant_without_a_baseline_is_reported_and_compared_with_no_other(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 200, shift=2.0, variant=Precision.FP16)
    await monitor.answer(1, 100, variant=Precision.INT8)
    await monitor.pass_time(1)
    assert await windows_of(monitor) == [(1, "fp16", "untested"), (2, "fp16", "untested"), (4, "int8", "quiet")]
    windows = await list_windows(KEY, 100, monitor.ports)
    assert [window.reason for window in reversed(windows)] == [
        "The fp16 baseline of version 1 cannot be used: there is none.",
        "The fp16 baseline of version 1 cannot be used: there is none.",
        "",
    ]
    assert await monitor.outbox(DriftDetected) == []


async def test_a_window_waits_for_no_window_of_another_variant(monitor: Monitor) -> None:
    await monitor.serve(1)
    monitor.baselines.by_variant[1, Precision.FP16] = monitor.inputs.rows(200)
    await monitor.answer(1, 100, variant=Precision.INT8)
    await monitor.answer(1, 100, variant=Precision.FP16)
    by_window = {timer.payload["number"]: timer for timer in await monitor.timers(WINDOW_TIMER)}
    assert len(by_window) == 2
    await run_drift_test(by_window[max(by_window)], monitor.ports)
    assert await windows_of(monitor) == [(max(by_window), "fp16", "quiet")]


async def test_the_samples_of_a_tested_window_are_dropped(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 130)
    await monitor.pass_time(1)
    async with monitor.store.reading() as tx:
        assert await tx.samples(KEY, 1) == ()
        assert len(await tx.samples(KEY, 2)) == 30


async def test_drift_belongs_to_the_workflow_of_the_version_that_drifted(monitor: Monitor) -> None:
    await monitor.serve(1)
    async with monitor.store.reading() as tx:
        watch = await tx.watch(KEY)
    await monitor.answer(1, 200, shift=2.0)
    await monitor.pass_time(1)
    (detected,) = await monitor.outbox(DriftDetected)
    assert watch is not None
    assert detected.correlation == watch.context.correlation_id
    assert detected.causation.startswith("e-")


async def test_a_stopped_deployment_is_not_watched_and_what_still_arrives_trips_nothing(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.answer(1, 60)
    await monitor.stop(1)
    await monitor.answer(1, 300, shift=2.0)
    await monitor.pass_time(60)
    assert await verdicts(monitor) == []
    assert await monitor.outbox(DriftDetected) == []
    await monitor.serve(1)
    await monitor.answer(1, 100)
    await monitor.pass_time(1)
    assert await verdicts(monitor) == ["quiet"]
