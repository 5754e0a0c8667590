"""The registry's history."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.contracts.rpc import registry_pb2
from services.gateway.inbound.grpc_services import REGISTRY
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.registry import HistoryHead, ListHistoryQuery, ListHistoryResponse
from services.gateway.inbound.http.preconditions import EntityResponse
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/history")
@rpc(REGISTRY, "ListHistory")
async def list_history(query: Annotated[ListHistoryQuery, Query()], call: Call) -> ListHistoryResponse:
    """The registry's facts, in order."""
    return ListHistoryResponse.of(await call.forward(query.to(registry_pb2.ListHistoryRequest)))


@router.get("/api/v1/history/head", response_class=EntityResponse)
@rpc(REGISTRY, "GetHistoryHead")
async def get_history_head(call: Call) -> HistoryHead:
    """Number and hash of the fact that was written last."""
    return HistoryHead.of(await call.forward(registry_pb2.GetHistoryHeadRequest()))
