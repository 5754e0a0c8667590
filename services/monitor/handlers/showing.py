"""What is shown to those who ask."""

from dataclasses import dataclass
from datetime import timedelta

from services.contracts.events import Verdict
from services.monitor.domain.drift import WindowVerdict
from services.monitor.domain.slo import Counts, Interval95, quantile_ms, wilson
from services.monitor.domain.watching import ClosedWindow, Place, RolloutVerdict
from services.monitor.errors import UnknownDeployment, UnknownWindow
from services.monitor.ports import Ports, Tx


@dataclass(frozen=True)
class VersionHealth:
    """One version over the last while. Latencies are 0 without answered requests, accuracy without labels."""

    version: int
    counts: Counts
    latency_p50_ms: float
    latency_p99_ms: float
    accuracy: float
    accuracy_ci95: Interval95


async def show_health(place: Place, ports: Ports) -> list[VersionHealth]:
    """By version. Raises UnknownDeployment."""
    since = ports.clock.now() - timedelta(seconds=ports.policy.health_seconds)
    async with ports.store.reading() as tx:
        await _require(place, tx)
        found = await tx.counts(place, since)
    return [_health(version, counts) for version, counts in sorted(found.items())]


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
        await _require(place, tx)
        return await tx.tested_windows(place, limit, before=before, version=version, verdict=verdict)


async def get_window(place: Place, number: int, ports: Ports) -> ClosedWindow:
    """A tested window, with the numbers of its test. Raises UnknownDeployment, UnknownWindow."""
    async with ports.store.reading() as tx:
        await _require(place, tx)
        window = await tx.window(place, number)
    if window is None or window.verdict is None:
        raise UnknownWindow(deployment=place.deployment, number=number)
    return window


async def list_verdicts(
    place: Place,
    limit: int,
    ports: Ports,
    *,
    before: int = 0,
    version: int = 0,
    verdict: Verdict | None = None,
    rollout: str = "",
) -> list[tuple[int, RolloutVerdict]]:
    """With their numbers, the newest first. Raises UnknownDeployment."""
    async with ports.store.reading() as tx:
        await _require(place, tx)
        return await tx.verdicts(place, limit, before=before, version=version, verdict=verdict, rollout=rollout)


async def _require(place: Place, tx: Tx) -> None:
    if await tx.watch(place) is None:
        raise UnknownDeployment(deployment=place.deployment)


def _health(version: int, counts: Counts) -> VersionHealth:
    return VersionHealth(
        version=version,
        counts=counts,
        latency_p50_ms=quantile_ms(counts.histogram, 0.5),
        latency_p99_ms=quantile_ms(counts.histogram, 0.99),
        accuracy=counts.right / counts.labelled if counts.labelled else 0.0,
        accuracy_ci95=wilson(counts.right, counts.labelled),
    )
