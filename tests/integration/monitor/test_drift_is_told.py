"""From batches of requests to `drift.detected`."""

from services.contracts.errors import Unavailable
from services.contracts.events import DriftDetected
from services.monitor.domain.drift import WindowVerdict
from services.monitor.domain.watching import Place
from services.monitor.handlers.drifting import WINDOW_TIMER, examine_window
from services.monitor.handlers.showing import list_windows
from services.monitor.handlers.taking import take_records
from tests.integration.monitor.conftest import DEPLOYMENT, Monitor

PLACE = Place("default", DEPLOYMENT)


async def verdicts(monitor: Monitor) -> list[str]:
    """Of the tested windows, the oldest first."""
    found = await list_windows(PLACE, 100, monitor.ports)
    return [window.verdict.value for window in reversed(found) if window.verdict is not None]


async def test_unchanged_traffic_stays_quiet(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 350)
    await monitor.pass_time(1)
    assert await verdicts(monitor) == ["quiet"] * 3
    assert await monitor.told(DriftDetected) == []


async def test_shifted_traffic_is_told_after_two_windows_and_only_once(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 130)
    await monitor.answer(1, 470, shift=2.0)
    await monitor.pass_time(1)
    assert (await verdicts(monitor))[0] == "quiet"
    assert (await verdicts(monitor))[-1] == "drifted"
    (told,) = await monitor.told(DriftDetected)
    event = told.event
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
    (told,) = await monitor.told(DriftDetected)
    assert told.event.requests_since_quiet == 230


async def test_a_batch_told_twice_changes_nothing(monitor: Monitor) -> None:
    await monitor.serve(1)
    rows = monitor.inputs.rows(60)
    envelope = await monitor.log(*[monitor.record(1, row=row) for row in rows])
    await take_records([envelope, envelope], monitor.ports)
    again = monitor.envelope(envelope.event)
    await take_records([again], monitor.ports)
    async with monitor.store.reading() as tx:
        watch = await tx.watch(PLACE)
        assert watch is not None
        assert watch.answered == 60
        assert len(await tx.samples(PLACE, 1)) == 60


async def test_another_version_begins_afresh(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 90, shift=2.0)
    await monitor.serve(2)
    await monitor.answer(2, 100)
    await monitor.pass_time(1)
    found = await list_windows(PLACE, 10, monitor.ports)
    assert [(window.version, window.verdict) for window in found] == [(2, WindowVerdict.QUIET)]


async def test_drift_is_told_again_for_the_next_version(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 200, shift=2.0)
    await monitor.pass_time(1)
    await monitor.serve(2)
    await monitor.answer(2, 200, shift=2.0)
    await monitor.pass_time(1)
    assert [told.event.version for told in await monitor.told(DriftDetected)] == [1, 2]


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
        watch = await tx.watch(PLACE)
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
        await examine_window(by_window[number], monitor.ports)
        assert await verdicts(monitor) == []
    await examine_window(by_window[1], monitor.ports)
    await examine_window(by_window[3], monitor.ports)
    assert await verdicts(monitor) == ["suspect"]
    await monitor.pass_time(1)  # the timers of those that had to wait are still set
    assert await verdicts(monitor) == ["suspect", "quiet", "suspect"]
    assert await monitor.told(DriftDetected) == []


async def test_without_a_baseline_windows_are_untested_and_never_alarm(monitor: Monitor) -> None:
    await monitor.serve(3)
    await monitor.answer(3, 200, shift=2.0)
    await monitor.pass_time(1)
    assert await verdicts(monitor) == ["untested", "untested"]
    assert await monitor.told(DriftDetected) == []


async def test_the_samples_of_a_tested_window_are_dropped(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 130)
    await monitor.pass_time(1)
    async with monitor.store.reading() as tx:
        assert await tx.samples(PLACE, 1) == ()
        assert len(await tx.samples(PLACE, 2)) == 30


async def test_drift_belongs_to_the_story_of_the_version_that_drifted(monitor: Monitor) -> None:
    await monitor.serve(1)
    async with monitor.store.reading() as tx:
        watch = await tx.watch(PLACE)
    await monitor.answer(1, 200, shift=2.0)
    await monitor.pass_time(1)
    (told,) = await monitor.told(DriftDetected)
    assert watch is not None
    assert told.correlation == watch.story.story
    assert told.causation.startswith("e-")


async def test_a_stopped_deployment_is_not_watched_and_what_still_arrives_trips_nothing(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.answer(1, 60)
    await monitor.stop(1)
    await monitor.answer(1, 300, shift=2.0)
    await monitor.pass_time(60)
    assert await verdicts(monitor) == []
    assert await monitor.told(DriftDetected) == []
    await monitor.serve(1)
    await monitor.answer(1, 100)
    await monitor.pass_time(1)
    assert await verdicts(monitor) == ["quiet"]
