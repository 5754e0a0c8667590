"""Between the monitor's values and its protobuf messages."""

import orjson

from services.contracts.rpc import common_pb2, monitor_pb2
from services.kit.transport.grpc_requests import timestamp
from services.monitor.domain.deployments import ClosedWindow
from services.monitor.domain.drift import TEST_NAME
from services.monitor.domain.rollouts import RolloutVerdict
from services.monitor.handlers.health import VersionHealth


def to_health(health: VersionHealth) -> monitor_pb2.VersionHealth:
    interval = health.accuracy_ci95
    return monitor_pb2.VersionHealth(
        version=health.version,
        requests=health.counts.requests,
        errors=health.counts.errors,
        latency_p50_ms=health.latency_p50_ms,
        latency_p99_ms=health.latency_p99_ms,
        labelled=health.counts.labelled,
        accuracy=health.accuracy,
        accuracy_ci95=common_pb2.Interval(low=interval.low, high=interval.high),
    )


def to_window(window: ClosedWindow) -> monitor_pb2.DriftWindow:
    """A window that could not be tested has the p-value 1."""
    test = window.test
    return monitor_pb2.DriftWindow(
        number=window.number,
        version=window.version,
        rows=window.rows,
        statistic=test.statistic if test else 0.0,
        p_value=test.p_value if test else 1.0,
        verdict=window.verdict.value if window.verdict else "",
        opened_at=timestamp(window.opened),
        closed_at=timestamp(window.closed),
        test=TEST_NAME if test else "",
        bandwidth=test.bandwidth if test else 0.0,
        baseline_rows=test.baseline_rows if test else 0,
        window_rows=test.window_rows if test else 0,
        permutations=test.permutations if test else 0,
        answered=window.answered,
        variant=window.variant.value,
        reason=window.reason,
    )


def to_verdict(verdict: RolloutVerdict) -> monitor_pb2.CanaryVerdict:
    evidence = [part.model_dump(mode="json") for part in verdict.evidence]
    return monitor_pb2.CanaryVerdict(
        rollout=verdict.rollout,
        version=verdict.version,
        step=verdict.step,
        verdict=verdict.verdict.value,
        reason=verdict.reason,
        requests=verdict.requests,
        evidence_json=orjson.dumps(evidence).decode(),
        at=timestamp(verdict.at),
    )
