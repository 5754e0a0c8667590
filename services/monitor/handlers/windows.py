"""Windows: filled as requests come in, tested beside the event loop, told once a version."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from services.contracts.artifact import Precision
from services.contracts.events import DriftDetected, Window
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.messaging.envelope import StoredEventRef
from services.kit.persistence.unit_of_work import Timer
from services.monitor import telemetry as names
from services.monitor.domain.deployments import ClosedWindow, Place, Watch, WindowSeries
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
from services.monitor.domain.windows import Arrival, OpenWindow, fill, rows_of
from services.monitor.errors import BaselineRefused, UnknownWindow
from services.monitor.handlers.lookup import require_watch
from services.monitor.ports import Ports, Tx

WINDOW_TIMER: Final = "monitor.window"


async def fill_windows(watch: Watch, arrivals: Sequence[Arrival], cause: str, tx: Tx, ports: Ports) -> None:
    """Each variant's requests fill windows of its own: fp16's embeddings beside int8's would look like drift."""
    by_variant: dict[Precision, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_variant[arrival.variant].append(arrival)
    for variant in sorted(by_variant):
        watch = await _fill(watch.open_series(variant), variant, by_variant[variant], cause, tx, ports)
    await tx.save_watch(watch)


async def _fill(
    watch: Watch, variant: Precision, arrivals: Sequence[Arrival], cause: str, tx: Tx, ports: Ports
) -> Watch:
    place, series = watch.place, watch.series[variant]
    kept = await tx.samples(place, series.number)
    opened = OpenWindow(series.number, kept, series.answered)
    filled = fill(opened, arrivals, ports.policy.drift.window_rows, next_window=watch.next_window)
    names.SAMPLES_LEFT_OUT.add(filled.repeated, tenant=place.tenant, reason="repeated")
    for window in (*filled.closed, filled.open):
        first = len(kept) if window.number == series.number else 0
        await tx.add_samples(place, window.number, first, window.samples[first:])
    for window in filled.closed:
        await tx.save_window(_closed(window, variant, watch))
        await tx.schedule(_window_timer(watch, window.number, cause, ports.clock.now()))
    series = replace(series, number=filled.open.number, answered=filled.open.answered)
    return replace(watch.with_series(variant, series), next_window=filled.next_window)


def _closed(window: OpenWindow, variant: Precision, watch: Watch) -> ClosedWindow:
    times = sorted(sample.at for sample in window.samples)
    version = watch.watched.version if watch.watched is not None else 0
    return ClosedWindow(watch.place, window.number, version, variant, len(times), window.answered, times[0], times[-1])


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
    """Tests a closed window and tells drift, once a version. Windows of one variant are tested in order."""
    place, number = Place(timer.tenant, str(timer.payload["deployment"])), int(timer.payload["number"])
    async with ports.store.reading() as tx:
        watch, window = await tx.watch(place), await tx.window(place, number)
        waiting = await tx.untested(place, window.variant) if window is not None else []
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
        baseline_RD = thinned(await ports.baselines.load(watched, window.variant), policy.baseline_rows)
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
    place, policy, series = watch.place, ports.policy.drift, watch.series[window.variant]
    labels = {"tenant": place.tenant, "deployment": place.deployment, "variant": window.variant.value}
    verdict, low = WindowVerdict.UNTESTED, 0
    if test is not None:
        verdict, low = verdict_of(test.p_value, series.low_windows, policy)
        names.WINDOW_P_VALUE.set(test.p_value, **labels)
    names.WINDOWS.add(1, verdict=verdict.value, **labels)
    series = series.tested(verdict, low, window.answered)
    drifted = verdict is WindowVerdict.DRIFTED and not watch.told
    await tx.save_window(replace(window, verdict=verdict, test=test))
    await tx.drop_samples(place, window.number)
    await tx.save_watch(replace(watch.with_series(window.variant, series), told=watch.told or drifted))
    if test is not None and drifted:
        with telemetry.span(names.TELL_DRIFT, attributes={"millrace.p_value": test.p_value}):
            event = _drift(watch.model, series, window, test, policy.alpha)
            await tx.emit(event, cause=timer.cause, tenant=place.tenant)
        names.DRIFTS.add(1, tenant=place.tenant, deployment=place.deployment)


def _drift(model: str, series: WindowSeries, window: ClosedWindow, test: DriftTest, alpha: float) -> DriftDetected:
    return DriftDetected(
        model=model,
        deployment=window.place.deployment,
        version=window.version,
        variant=window.variant,
        test=TEST_NAME,
        statistic=test.statistic,
        p_value=test.p_value,
        alpha=alpha,
        consecutive=series.low_windows,
        window=Window(number=window.number, rows=window.rows, opened=window.opened, closed=window.closed),
        baseline_rows=test.baseline_rows,
        requests_since_quiet=series.since_quiet,
    )


async def list_windows(
    place: Place,
    limit: int,
    ports: Ports,
    *,
    before: int = 0,
    version: int = 0,
    verdict: WindowVerdict | None = None,
) -> list[ClosedWindow]:
    """Tested windows, the newest first. Raises UnknownDeployment."""
    async with ports.store.reading() as tx:
        await require_watch(place, tx)
        return await tx.tested_windows(place, limit, before=before, version=version, verdict=verdict)


async def get_window(place: Place, number: int, ports: Ports) -> ClosedWindow:
    """A tested window, with the numbers of its test. Raises UnknownDeployment, UnknownWindow."""
    async with ports.store.reading() as tx:
        await require_watch(place, tx)
        window = await tx.window(place, number)
    if window is None or window.verdict is None:
        raise UnknownWindow(deployment=place.deployment, number=number)
    return window
