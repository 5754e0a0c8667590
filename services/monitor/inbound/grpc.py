"""gRPC: what the traffic of a deployment looks like."""

from typing import Any, Final

from services.contracts.events import Verdict
from services.contracts.rpc import monitor_pb2, monitor_pb2_grpc
from services.kit.transport.grpc_requests import caller, one_of, read_filter, within_column
from services.kit.transport.pagination import paging
from services.monitor.domain.deployments import DeploymentKey
from services.monitor.domain.drift import WindowVerdict
from services.monitor.handlers.health import get_health
from services.monitor.handlers.verdicts import list_verdicts
from services.monitor.handlers.windows import get_window, list_windows
from services.monitor.inbound.converters import to_health, to_verdict, to_window
from services.monitor.ports import Ports

SERVICE: Final = monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"].full_name


class MonitorRpc(monitor_pb2_grpc.MonitorServiceServicer):
    """Each method answers for the caller's own tenant. Errors become statuses in the kit."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def GetHealth(
        self, request: monitor_pb2.GetDeploymentHealthRequest, context: Any
    ) -> monitor_pb2.DeploymentHealth:
        by_version = await get_health(_key(request.deployment), self._ports)
        return monitor_pb2.DeploymentHealth(
            deployment=request.deployment, versions=[to_health(one) for one in by_version]
        )

    async def ListWindows(
        self, request: monitor_pb2.ListWindowsRequest, context: Any
    ) -> monitor_pb2.ListWindowsResponse:
        page = paging("ListWindows", request)
        windows = await list_windows(
            _key(request.deployment),
            page.limit,
            self._ports,
            before=page.number,
            version=within_column(request.version),
            verdict=one_of(WindowVerdict, request.verdict, "verdict"),
        )
        shown, following = page.slice(windows, lambda window: window.number)
        return monitor_pb2.ListWindowsResponse(windows=[to_window(one) for one in shown], next_page_token=following)

    async def GetWindow(self, request: monitor_pb2.GetWindowRequest, context: Any) -> monitor_pb2.DriftWindow:
        return to_window(await get_window(_key(request.deployment), within_column(request.number), self._ports))

    async def ListVerdicts(
        self, request: monitor_pb2.ListVerdictsRequest, context: Any
    ) -> monitor_pb2.ListVerdictsResponse:
        page = paging("ListVerdicts", request)
        verdicts = await list_verdicts(
            _key(request.deployment),
            page.limit,
            self._ports,
            before=page.number,
            version=within_column(request.version),
            verdict=one_of(Verdict, request.verdict, "verdict"),
            rollout=read_filter(request.rollout, "rollout"),
        )
        shown, following = page.slice(verdicts, lambda pair: pair[0])
        messages = [to_verdict(verdict) for _, verdict in shown]
        return monitor_pb2.ListVerdictsResponse(verdicts=messages, next_page_token=following)


def _key(deployment: str) -> DeploymentKey:
    return DeploymentKey(caller().tenant, deployment)
