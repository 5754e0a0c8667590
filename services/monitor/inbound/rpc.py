"""gRPC: what the traffic of a deployment looks like."""

from typing import Any, Final

import orjson

from services.contracts.events import Verdict
from services.contracts.rpc import common_pb2, monitor_pb2, monitor_pb2_grpc
from services.kit.transport.grpc_requests import caller, one_of, read_filter, timestamp, within_column
from services.kit.transport.pagination import paging
from services.monitor.domain.drift import TEST_NAME, WindowVerdict
from services.monitor.domain.watching import ClosedWindow, Place, RolloutVerdict
from services.monitor.handlers.showing import VersionHealth, get_window, list_verdicts, list_windows, show_health
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
        page = paging("ListWindows", request)
        found = await list_windows(
            _place(request.deployment),
            page.limit,
            self._ports,
            before=page.number,
            version=within_column(request.version),
            verdict=one_of(WindowVerdict, request.verdict, "verdict"),
        )
        shown, following = page.cut(found, lambda window: window.number)
        return monitor_pb2.ListWindowsResponse(windows=[_window(one) for one in shown], next_page_token=following)

    async def GetWindow(self, request: monitor_pb2.GetWindowRequest, context: Any) -> monitor_pb2.DriftWindow:
        return _window(await get_window(_place(request.deployment), within_column(request.number), self._ports))

    async def ListVerdicts(
        self, request: monitor_pb2.ListVerdictsRequest, context: Any
    ) -> monitor_pb2.ListVerdictsResponse:
        page = paging("ListVerdicts", request)
        found = await list_verdicts(
            _place(request.deployment),
            page.limit,
            self._ports,
            before=page.number,
            version=within_column(request.version),
            verdict=one_of(Verdict, request.verdict, "verdict"),
            rollout=read_filter(request.rollout, "rollout"),
        )
        shown, following = page.cut(found, lambda pair: pair[0])
        verdicts = [_verdict(told) for _, told in shown]
        return monitor_pb2.ListVerdictsResponse(verdicts=verdicts, next_page_token=following)


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
        at=timestamp(told.at),
    )
