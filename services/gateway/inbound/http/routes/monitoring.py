"""What the traffic of a deployment looks like."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.contracts.rpc import monitor_pb2
from services.gateway.inbound.grpc_services import MONITOR
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.monitor import (
    DeploymentHealth,
    DriftWindow,
    ListVerdictsQuery,
    ListVerdictsResponse,
    ListWindowsQuery,
    ListWindowsResponse,
)
from services.gateway.inbound.http.parameters import DeploymentName, WindowNumber
from services.gateway.inbound.http.preconditions import EntityResponse
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/deployments/{deployment}/health", response_class=EntityResponse)
@rpc(MONITOR, "GetHealth")
async def get_health(deployment: DeploymentName, call: Call) -> DeploymentHealth:
    """Errors, latency and accuracy of each version."""
    return DeploymentHealth.of(await call.forward(monitor_pb2.GetDeploymentHealthRequest(deployment=deployment)))


@router.get("/api/v1/deployments/{deployment}/windows")
@rpc(MONITOR, "ListWindows")
async def list_windows(
    deployment: DeploymentName, query: Annotated[ListWindowsQuery, Query()], call: Call
) -> ListWindowsResponse:
    """The drift windows, the newest first."""
    return ListWindowsResponse.of(await call.forward(query.to(monitor_pb2.ListWindowsRequest, deployment=deployment)))


@router.get("/api/v1/deployments/{deployment}/windows/{number}", response_class=EntityResponse)
@rpc(MONITOR, "GetWindow")
async def get_window(deployment: DeploymentName, number: WindowNumber, call: Call) -> DriftWindow:
    """One drift window, with its test's numbers."""
    return DriftWindow.of(await call.forward(monitor_pb2.GetWindowRequest(deployment=deployment, number=int(number))))


@router.get("/api/v1/deployments/{deployment}/verdicts")
@rpc(MONITOR, "ListVerdicts")
async def list_verdicts(
    deployment: DeploymentName, query: Annotated[ListVerdictsQuery, Query()], call: Call
) -> ListVerdictsResponse:
    """The canary verdicts, the newest first."""
    return ListVerdictsResponse.of(await call.forward(query.to(monitor_pb2.ListVerdictsRequest, deployment=deployment)))
