"""gRPC: what the traffic of a deployment looks like."""

from typing import Any, Final

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from services.contracts.rpc import common_pb2, monitor_pb2, monitor_pb2_grpc
from services.kit.requests import caller, page_size
from services.monitor.domain.watching import ClosedWindow, Place, RolloutVerdict
from services.monitor.handlers.showing import VersionHealth, list_verdicts, list_windows, show_health
from services.monitor.ports import Ports

SERVICE: Final = monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"].full_name


class MonitorRpc(monitor_pb2_grpc.MonitorServiceServicer):
    """Each method asks about the caller's own tenant. Refusals become statuses in the kit."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def GetHealth(
        self, request: monitor_pb2.GetDeploymentHealthRequest, context: Any
    ) -> monitor_pb2.DeploymentHealth:
        found = await show_health(_place(request.deployment), self._ports)
        return monitor_pb2.DeploymentHealth(deployment=request.deployment, versions=[_health(one) for one in found])

    async def ListWindows(
        self, request: monitor_pb2.ListWindowsRequest, context: Any
    ) -> monitor_pb2.ListWindowsResponse:
        found = await list_windows(_place(request.deployment), page_size(request.page_size), self._ports)
        return monitor_pb2.ListWindowsResponse(windows=[_window(one) for one in found])

    async def ListVerdicts(
        self, request: monitor_pb2.ListVerdictsRequest, context: Any
    ) -> monitor_pb2.ListVerdictsResponse:
        found = await list_verdicts(_place(request.deployment), page_size(request.page_size), self._ports)
        return monitor_pb2.ListVerdictsResponse(verdicts=[_verdict(one) for one in found])


def _place(deployment: str) -> Place:
    return Place(caller().tenant, deployment)


def _health(health: VersionHealth) -> monitor_pb2.VersionHealth:
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


def _window(window: ClosedWindow) -> monitor_pb2.DriftWindow:
    """A window that could not be tested has p-value 1: nothing speaks against it."""
    return monitor_pb2.DriftWindow(
        number=window.number,
        version=window.version,
        rows=window.rows,
        statistic=window.test.statistic if window.test else 0.0,
        p_value=window.test.p_value if window.test else 1.0,
        verdict=window.verdict.value if window.verdict else "",
        opened_at=_timestamp(window.opened),
        closed_at=_timestamp(window.closed),
    )


def _verdict(told: RolloutVerdict) -> monitor_pb2.CanaryVerdict:
    evidence = [part.model_dump(mode="json") for part in told.evidence]
    return monitor_pb2.CanaryVerdict(
        rollout=told.rollout,
        version=told.version,
        step=told.step,
        verdict=told.verdict.value,
        reason=told.reason,
        requests=told.requests,
        evidence_json=orjson.dumps(evidence).decode(),
        at=_timestamp(told.at),
    )


def _timestamp(moment: Any) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
