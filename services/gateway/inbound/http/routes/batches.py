"""Batches: files that are answered row by row."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from services.contracts.rpc import batches_pb2
from services.gateway.handlers.batches import read_output
from services.gateway.inbound import batches as converters
from services.gateway.inbound.grpc_services import BATCHES
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.batches import (
    Batch,
    BatchRow,
    CancelBatchRequest,
    CreateBatchRequest,
    ListBatchesQuery,
    ListBatchesResponse,
)
from services.gateway.inbound.http.ndjson import NdjsonResponse
from services.gateway.inbound.http.parameters import BatchId
from services.gateway.inbound.http.preconditions import EntityResponse
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/batches")
@rpc(BATCHES, "ListBatches")
async def list_batches(query: Annotated[ListBatchesQuery, Query()], call: Call) -> ListBatchesResponse:
    """Files that are or were classified, the newest first."""
    return ListBatchesResponse.of(
        await converters.list_all(query.to(batches_pb2.ListBatchesRequest), call.caller, call.ports)
    )


@router.post("/api/v1/batches", status_code=202)
@rpc(BATCHES, "CreateBatch")
async def create_batch(body: CreateBatchRequest, call: Call) -> Batch:
    """Classifies every row of a file, while nobody waits."""
    return Batch.of(await converters.create(body.to(batches_pb2.CreateBatchRequest), call.caller, call.ports))


@router.get("/api/v1/batches/{batch}", response_class=EntityResponse)
@rpc(BATCHES, "GetBatch")
async def get_batch(batch: BatchId, call: Call) -> Batch:
    """One batch: how far it is, and where its output lies."""
    return Batch.of(await converters.get(batches_pb2.GetBatchRequest(batch=batch), call.caller, call.ports))


@router.post("/api/v1/batches/{batch}:cancel")
@rpc(BATCHES, "CancelBatch")
async def cancel_batch(batch: BatchId, body: CancelBatchRequest, call: Call) -> Batch:
    """Ends a batch."""
    return Batch.of(
        await converters.cancel(body.to(batches_pb2.CancelBatchRequest, batch=batch), call.caller, call.ports)
    )


@router.get("/api/v1/batches/{batch}/output", response_class=NdjsonResponse, response_model=BatchRow)
@rpc(BATCHES, "GetBatchOutput")
async def get_batch_output(batch: BatchId, call: Call) -> Response:
    """The output: one JSON object a row of the input.

    Its hash is its ETag: whoever has it already is told so.
    """
    outcome, chunks = await read_output(call.request.principal.tenant, batch, call.ports)
    etag = f'"{outcome.sha256}"'
    if etag in call.request.headers.get(b"if-none-match", ""):
        return Response(status_code=304, headers={"etag": etag})
    return NdjsonResponse(chunks, {"etag": etag, "content-length": str(outcome.size_bytes)})
