"""Training runs."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from services.contracts.rpc import trainer_pb2
from services.gateway.inbound.grpc_services import TRAINER
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.trainer import (
    CancelRunRequest,
    GetRunLogsQuery,
    ListRunsQuery,
    ListRunsResponse,
    Run,
    RunLogLine,
    StartRunRequest,
)
from services.gateway.inbound.http.ndjson import NdjsonResponse, to_line
from services.gateway.inbound.http.parameters import RunId
from services.gateway.inbound.http.preconditions import EntityResponse
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/runs")
@rpc(TRAINER, "ListRuns")
async def list_runs(query: Annotated[ListRunsQuery, Query()], call: Call) -> ListRunsResponse:
    """Training runs, the newest first."""
    return ListRunsResponse.of(await call.forward(query.to(trainer_pb2.ListRunsRequest)))


@router.post("/api/v1/runs", status_code=201)
@rpc(TRAINER, "StartRun")
async def start_run(body: StartRunRequest, call: Call) -> Run:
    """Starts a run on a data set, or on an earlier version of it."""
    return Run.of(await call.forward(body.to(trainer_pb2.StartRunRequest)))


@router.get("/api/v1/runs/{run}", response_class=EntityResponse)
@rpc(TRAINER, "GetRun")
async def get_run(run: RunId, call: Call) -> Run:
    """One run."""
    return Run.of(await call.forward(trainer_pb2.GetRunRequest(run=run)))


@router.get("/api/v1/runs/{run}/logs", response_class=NdjsonResponse, response_model=RunLogLine)
@rpc(TRAINER, "GetRunLogs")
async def get_run_logs(run: RunId, query: Annotated[GetRunLogsQuery, Query()], call: Call) -> Response:
    """The run's log: one JSON object a line."""
    lines = call.stream(query.to(trainer_pb2.GetRunLogsRequest, run=run), follow=bool(query.follow))
    return NdjsonResponse(to_line(line) async for line in lines)


@router.post("/api/v1/runs/{run}:cancel")
@rpc(TRAINER, "CancelRun")
async def cancel_run(run: RunId, body: CancelRunRequest, call: Call) -> Run:
    """Stops a run."""
    return Run.of(await call.forward(body.to(trainer_pb2.CancelRunRequest, run=run)))
