"""Windows: filled as requests come in, tested beside the event loop, told once a version."""

from dataclasses import replace
from datetime import datetime
from typing import Final

from services.contracts.events import DriftDetected, Window
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.messaging.envelope import StoredEventRef
from services.kit.persistence.unit_of_work import Timer
from services.monitor import telemetry as names
from services.monitor.domain.drift import (
    TEST_NAME,
    DriftTest,
    Floats,
    WindowVerdict,
    mmd_test,
    seed_of,
    thinned,
    verdict_of,
)
from services.monitor.domain.intake import Intake
from services.monitor.domain.watching import ClosedWindow, Place, Watch
from services.monitor.domain.windows import OpenWindow, fill, rows_of
from services.monitor.errors import BaselineRefused
from services.monitor.ports import Ports, Tx

WINDOW_TIMER: Final = "monitor.window"


async def fill_window(watch: Watch, intake: Intake, cause: str, tx: Tx, ports: Ports) -> None:
    place, kept = watch.place, await tx.samples(watch.place, watch.window)
    filled = fill(OpenWindow(watch.window, kept, watch.answered), intake.arrivals, ports.policy.drift.window_rows)
    names.SAMPLES_LEFT_OUT.add(filled.repeated, tenant=place.tenant, reason="repeated")
    for window in (*filled.closed, filled.open):
        first = len(kept) if window.number == watch.window else 0
        await tx.add_samples(place, window.number, first, window.samples[first:])
    for window in filled.closed:
        await tx.save_window(_closed(window, watch))
        await tx.schedule(_window_timer(watch, window.number, cause, ports.clock.now()))
    await tx.save_watch(replace(watch, window=filled.open.number, answered=filled.open.answered))


def _closed(window: OpenWindow, watch: Watch) -> ClosedWindow:
    times = sorted(sample.at for sample in window.samples)
    version = watch.watched.version if watch.watched is not None else 0
    return ClosedWindow(watch.place, window.number, version, len(times), window.answered, times[0], times[-1])


def _window_timer(watch: Watch, number: int, cause: str, due: datetime) -> Timer:
    """Numbers are padded: windows of one moment are tested in their order."""
    tenant, deployment = watch.place.tenant, watch.place.deployment
    return Timer(
        key=f"window:{tenant}:{deployment}:{number:09d}",
        kind=WINDOW_TIMER,
        due=due,
        payload={"deployment": deployment, "number": number},
        tenant=tenant,
        cause=StoredEventRef(id=cause, story=watch.story.story, tenant=tenant),
        trace=watch.story.trace,
    )


async def examine_window(timer: Timer, ports: Ports) -> None:
    """Tests a closed window and tells drift, once a version. Windows of one deployment are tested in order."""
    place, number = Place(timer.tenant, str(timer.payload["deployment"])), int(timer.payload["number"])
    async with ports.store.reading() as tx:
        watch, window = await tx.watch(place), await tx.window(place, number)
        waiting = await tx.untested(place)
        rows_WD = rows_of(await tx.samples(place, number))
    if waiting and waiting[0] < number:
        return
    test = await _tested(watch, window, rows_WD, ports)
    async with ports.store.transaction() as tx:
        await tx.alone(place)
        watch, window = await tx.watch(place), await tx.window(place, number)
        if not await tx.take_timer(timer) or watch is None or window is None or window.verdict is not None:
            return
        await _keep_test(watch, window, test, timer, tx, ports)


async def _tested(watch: Watch | None, window: ClosedWindow | None, rows_WD: Floats, ports: Ports) -> DriftTest | None:
    """None where there is nothing to compare with; the reason is in the log."""
    if watch is None or watch.watched is None or window is None or window.version != watch.watched.version:
        return None
    policy, watched = ports.policy.drift, watch.watched
    seed = seed_of(watch.model, watched.version, window.number)
    try:
        baseline_RD = thinned(await ports.baselines.load(watched), policy.baseline_rows)
        with names.WINDOW_SECONDS.time(tenant=watch.place.tenant):
            return await ports.offload(
                lambda: mmd_test(baseline_RD, rows_WD, permutations=policy.permutations, seed=seed)
            )
    except (BaselineRefused, ValueError) as problem:
        logger.warning("window %d of %s is not tested: %s", window.number, watch.place.deployment, problem)
        return None


async def _keep_test(
    watch: Watch, window: ClosedWindow, test: DriftTest | None, timer: Timer, tx: Tx, ports: Ports
) -> None:
    place, policy = watch.place, ports.policy.drift
    verdict, low = WindowVerdict.UNTESTED, 0
    if test is not None:
        verdict, low = verdict_of(test.p_value, watch.low_windows, policy)
        names.WINDOW_P_VALUE.set(test.p_value, tenant=place.tenant, deployment=place.deployment)
    names.WINDOWS.add(1, tenant=place.tenant, deployment=place.deployment, verdict=verdict.value)
    after = watch.tested(verdict, low, window.answered)
    await tx.save_window(replace(window, verdict=verdict, test=test))
    await tx.drop_samples(place, window.number)
    await tx.save_watch(after)
    if test is not None and after.told and not watch.told:
        with telemetry.span(names.TELL_DRIFT, attributes={"millrace.p_value": test.p_value}):
            await tx.emit(_drift(after, window, test, policy.alpha), cause=timer.cause, tenant=place.tenant)
        names.DRIFTS.add(1, tenant=place.tenant, deployment=place.deployment)


def _drift(watch: Watch, window: ClosedWindow, test: DriftTest, alpha: float) -> DriftDetected:
    return DriftDetected(
        model=watch.model,
        deployment=watch.place.deployment,
        version=window.version,
        test=TEST_NAME,
        statistic=test.statistic,
        p_value=test.p_value,
        alpha=alpha,
        consecutive=watch.low_windows,
        window=Window(number=window.number, rows=window.rows, opened=window.opened, closed=window.closed),
        baseline_rows=test.baseline_rows,
        requests_since_quiet=watch.since_quiet,
    )
