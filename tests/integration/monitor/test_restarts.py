"""What a monitor knows survives its sudden end: a second one on the same database goes on where the first stopped."""

from pathlib import Path

from services.contracts.events import DriftDetected, RolloutJudged, Verdict
from tests.integration.monitor.conftest import Monitor, opened
from tests.integration.monitor.test_canaries_are_judged import pairs


async def successor(monitor: Monitor, home: Path) -> Monitor:
    """Nothing of the first monitor's memory is handed on."""
    database = monitor.store.database
    await database.close()
    second = await opened(database.url, home, monitor.clock, monitor.inputs, seed=2)
    second.baselines.by_variant = monitor.baselines.by_variant
    second.made, second.generation = monitor.made, monitor.generation
    return second


async def test_a_half_full_window_is_filled_by_the_successor(monitor: Monitor, tmp_path: Path) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 150, shift=2.0)
    second = await successor(monitor, tmp_path)
    await second.answer(1, 50, shift=2.0)
    await second.pass_time(1)
    (detected,) = await second.outbox(DriftDetected)
    assert detected.event.requests_since_quiet == 200
    await second.store.database.close()


async def test_a_canary_is_judged_by_the_successor(monitor: Monitor, tmp_path: Path) -> None:
    await monitor.serve(1, canary=2)
    await pairs(monitor, 40, candidate=0.5, champion=0.9)
    second = await successor(monitor, tmp_path)
    await pairs(second, 30, candidate=0.5, champion=0.9, seed=2)
    await second.pass_time(1)
    judged = [envelope.event for envelope in await second.outbox(RolloutJudged)]
    assert judged[-1].verdict is Verdict.ROLL_BACK
    assert judged[-1].evidence[0].pairs == 70
    await second.store.database.close()
