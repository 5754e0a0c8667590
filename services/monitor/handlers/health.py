"""Health: requests, errors, latency and accuracy of the versions of a deployment."""

from dataclasses import dataclass
from datetime import timedelta

from services.monitor.domain.deployments import DeploymentKey
from services.monitor.domain.slo import Counts, Interval95, quantile_ms, wilson
from services.monitor.handlers.lookup import require_watch
from services.monitor.ports import Ports


@dataclass(frozen=True)
class VersionHealth:
    """One version of late. Latencies are 0 without answered requests, accuracy without labels."""

    version: int
    counts: Counts
    latency_p50_ms: float
    latency_p99_ms: float
    accuracy: float
    accuracy_ci95: Interval95


async def get_health(key: DeploymentKey, ports: Ports) -> list[VersionHealth]:
    """By version. Raises UnknownDeployment."""
    since = ports.clock.now() - timedelta(seconds=ports.policy.health_seconds)
    async with ports.store.reading() as tx:
        await require_watch(key, tx)
        by_version = await tx.counts(key, since)
    return [_health(version, counts) for version, counts in sorted(by_version.items())]


def _health(version: int, counts: Counts) -> VersionHealth:
    return VersionHealth(
        version=version,
        counts=counts,
        latency_p50_ms=quantile_ms(counts.histogram, 0.5),
        latency_p99_ms=quantile_ms(counts.histogram, 0.99),
        accuracy=counts.right / counts.labelled if counts.labelled else 0.0,
        accuracy_ci95=wilson(counts.right, counts.labelled),
    )
