"""Windows: filled as requests come in, tested beside the event loop; drift is published once a version."""

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
from services.monitor.domain.deployments import ClosedWindow, DeploymentKey, Watch, WindowSeries
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


async def fill_windows(watch: Watch, arrivals: Sequence[Arrival], trigger: str, tx: Tx, ports: Ports) -> None:
    """Fills the windows of each variant apart: fp16's embeddings beside int8's would look like drift. `trigger` is the
    id of the event that brought the arrivals."""
    by_variant: dict[Precision, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_variant[arrival.variant].append(arrival)
    for variant in sorted(by_variant):
        watch = await _fill(watch.open_series(variant), variant, by_variant[variant], trigger, tx, ports)
    await tx.save_watch(watch)


async def _fill(
    watch: Watch, variant: Precision, arrivals: Sequence[Arrival], trigger: str, tx: Tx, ports: Ports
) -> Watch:
    key, series = watch.key, watch.series[variant]
    earlier = await tx.samples(key, series.number)
    opened = OpenWindow(series.number, earlier, series.answered)
    filled = fill(opened, arrivals, ports.policy.drift.window_rows, next_window=watch.next_window)
    names.SAMPLES_LEFT_OUT.add(filled.repeated, tenant=key.tenant, reason="repeated")
    for window in (*filled.closed, filled.open):
        first = len(earlier) if window.number == series.number else 0
        await tx.add_samples(key, window.number, first, window.samples[first:])
    for window in filled.closed:
        await tx.save_window(_closed(window, variant, watch))
        await tx.schedule(_window_timer(watch, window.number, trigger, ports.clock.now()))
    series = replace(series, number=filled.open.number, answered=filled.open.answered)
    return replace(watch.with_series(variant, series), next_window=filled.next_window)


def _closed(window: OpenWindow, variant: Precision, watch: Watch) -> ClosedWindow:
    times = sorted(sample.at for sample in window.samples)
    version = watch.primary.version if watch.primary is not None else 0
    return ClosedWindow(watch.key, window.number, version, variant, len(times), window.answered, times[0], times[-1])


def _window_timer(watch: Watch, number: int, trigger: str, due: datetime) -> Timer:
    """Numbers are padded: timers that are due together run in the order of their windows."""
    tenant, deployment = watch.key.tenant, watch.key.deployment
    return Timer(
        key=f"window:{tenant}:{deployment}:{number:09d}",
        kind=WINDOW_TIMER,
        due=due,
        payload={"deployment": deployment, "number": number},
        tenant=tenant,
        cause=StoredEventRef(trigger, watch.context.correlation_id, tenant),
        trace=watch.context.trace,
    )


async def run_drift_test(timer: Timer, ports: Ports) -> None:
    """Tests a closed window and publishes drift, once a version. Windows of one variant are tested in order."""
    key, number = DeploymentKey(timer.tenant, str(timer.payload["deployment"])), int(timer.payload["number"])
    async with ports.store.reading() as tx:
        watch, window = await tx.watch(key), await tx.window(key, number)
        waiting = await tx.untested(key, window.variant) if window is not None else []
        rows_WD = rows_of(await tx.samples(key, number))
    if waiting and waiting[0] < number:
        return
    try:
        test, reason = await _test(watch, window, rows_WD, ports), ""
    except (BaselineRefused, ValueError) as error:
        test, reason = None, str(error)
        logger.warning("window %d of %s is not tested: %s", number, key.deployment, error)
    async with ports.store.transaction() as tx:
        await tx.lock_deployment(key)
        watch, window = await tx.watch(key), await tx.window(key, number)
        if not await tx.take_timer(timer) or watch is None or window is None or window.verdict is not None:
            return
        await _save_test(watch, replace(window, test=test, reason=reason), timer, tx, ports)


async def _test(watch: Watch | None, window: ClosedWindow | None, rows_WD: Floats, ports: Ports) -> DriftTest | None:
    """None where the version serves no more. Raises BaselineRefused, and ValueError for rows that do not compare."""
    if watch is None or watch.primary is None or window is None or window.version != watch.primary.version:
        return None
    policy, primary = ports.policy.drift, watch.primary
    seed = seed_of(watch.model, primary.version, window.number)
    baseline_RD = thinned(await ports.baselines.load(primary, window.variant), policy.baseline_rows)
    with names.WINDOW_SECONDS.time(tenant=watch.key.tenant):
        return await ports.offload(lambda: mmd_test(baseline_RD, rows_WD, permutations=policy.permutations, seed=seed))


async def _save_test(watch: Watch, window: ClosedWindow, timer: Timer, tx: Tx, ports: Ports) -> None:
    test, key, policy = window.test, watch.key, ports.policy.drift
    series = watch.series[window.variant]
    labels = {"tenant": key.tenant, "deployment": key.deployment, "variant": window.variant.value}
    verdict, low = WindowVerdict.UNTESTED, 0
    if test is not None:
        verdict, low = verdict_of(test.p_value, series.low_windows, policy)
        names.WINDOW_P_VALUE.set(test.p_value, **labels)
    names.WINDOWS.add(1, verdict=verdict.value, **labels)
    series = series.tested(verdict, low, window.answered)
    drifted = verdict is WindowVerdict.DRIFTED and not watch.drift_published
    await tx.save_window(replace(window, verdict=verdict))
    await tx.drop_samples(key, window.number)
    await tx.save_watch(
        replace(watch.with_series(window.variant, series), drift_published=watch.drift_published or drifted)
    )
    if test is not None and drifted:
        with telemetry.span(names.PUBLISH_DRIFT, attributes={"millrace.p_value": test.p_value}):
            event = _drift(watch.model, series, window, test, policy.alpha)
            await tx.emit(event, cause=timer.cause, tenant=key.tenant)
        names.DRIFTS.add(1, tenant=key.tenant, deployment=key.deployment)


def _drift(model: str, series: WindowSeries, window: ClosedWindow, test: DriftTest, alpha: float) -> DriftDetected:
    return DriftDetected(
        model=model,
        deployment=window.key.deployment,
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
    key: DeploymentKey,
    limit: int,
    ports: Ports,
    *,
    before: int = 0,
    version: int = 0,
    verdict: WindowVerdict | None = None,
) -> list[ClosedWindow]:
    """Tested windows, the newest first. Raises UnknownDeployment."""
    async with ports.store.reading() as tx:
        await require_watch(key, tx)
        return await tx.tested_windows(key, limit, before=before, version=version, verdict=verdict)


async def get_window(key: DeploymentKey, number: int, ports: Ports) -> ClosedWindow:
    """A tested window, with the numbers of its test. Raises UnknownDeployment, UnknownWindow."""
    async with ports.store.reading() as tx:
        await require_watch(key, tx)
        window = await tx.window(key, number)
    if window is None or window.verdict is None:
        raise UnknownWindow(deployment=key.deployment, number=number)
    return window
