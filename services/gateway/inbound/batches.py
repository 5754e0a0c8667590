"""Batches between protobuf and what the handlers know; the same for REST and gRPC."""

from typing import Any, Final

import orjson
from pydantic import ValidationError

from services.contracts.errors import BadField, Malformed
from services.contracts.rpc import batches_pb2 as wire
from services.contracts.rpc.inference_pb2 import LabelScore
from services.contracts.tasks import CLASSIFICATION
from services.gateway.domain.batches import Batch, BatchSpec, BatchStatus
from services.gateway.domain.requests import Caller, bad_field, check_identifier
from services.gateway.handlers.batches import cancel_batch, create_batch, get_batch, list_batches
from services.gateway.inbound.converters import check_uri
from services.gateway.ports import Ports
from services.kit.transport.grpc_requests import read_reason, timestamp
from services.kit.transport.pagination import paging

_STATES: Final = ", ".join(BatchStatus)


async def create(request: wire.CreateBatchRequest, caller: Caller, ports: Ports) -> wire.Batch:
    check_uri(request.uri)
    try:
        spec = BatchSpec(
            deployment=request.deployment,
            uri=request.uri,
            format=request.format or "jsonl",
            text_column=request.text_column or "text",
            version=request.version,
            task=request.task or CLASSIFICATION.name,
            options=_options(request),
        )
    except ValidationError as error:
        raise bad_field(error) from error
    return batch_message(await create_batch(spec, caller, ports))


async def cancel(request: wire.CancelBatchRequest, caller: Caller, ports: Ports) -> wire.Batch:
    check_identifier(request.batch, "batch")
    return batch_message(await cancel_batch(request.batch, caller, ports, reason=read_reason(request.reason)))


async def get(request: wire.GetBatchRequest, caller: Caller, ports: Ports) -> wire.Batch:
    check_identifier(request.batch, "batch")
    return batch_message(await get_batch(caller.tenant, request.batch, ports))


async def list_all(request: wire.ListBatchesRequest, caller: Caller, ports: Ports) -> wire.ListBatchesResponse:
    if request.status and request.status not in tuple(BatchStatus):
        raise BadField(name="status", problem=f"it is none of {_STATES}", field="status")
    page = paging("ListBatches", request)
    batches = await list_batches(
        caller.tenant,
        ports,
        deployment=request.deployment,
        status=request.status,
        before=page.after,
        limit=page.limit,
    )
    shown, following = page.slice(batches, lambda batch: batch.id)
    return wire.ListBatchesResponse(batches=map(batch_message, shown), next_page_token=following)


def batch_message(batch: Batch) -> wire.Batch:
    spec = batch.spec
    message = wire.Batch(
        batch=batch.id,
        deployment=spec.deployment,
        uri=spec.uri,
        format=spec.format,
        text_column=spec.text_column,
        version=spec.version,
        with_embeddings=bool(spec.options.get("with_embeddings")),
        whole_texts=bool(spec.options.get("whole_texts")),
        task=spec.task,
        options_json=orjson.dumps(spec.options).decode(),
        status=batch.status,
        progress=batch.progress,
        rows=batch.rows,
        failed_rows=batch.failed_rows,
        versions=batch.versions,
        attempt=batch.attempt,
        created_at=timestamp(batch.created_at),
        ended_at=timestamp(batch.ended_at),
        trace_id=batch.trace_id,
    )
    if batch.failure is not None:
        message.failure_code, message.failure_reason = batch.failure.code, batch.failure.reason
        message.failure_row = batch.failure.row or 0
    if batch.outcome is not None:
        message.output_uri, message.manifest_uri = batch.outcome.output_uri, batch.outcome.manifest_uri
        message.output_sha256 = batch.outcome.sha256
    return message


def row_message(line: bytes) -> wire.BatchRow:
    """From a line of the output."""
    fields: dict[str, Any] = orjson.loads(line)
    message = wire.BatchRow(
        row=fields.pop("row"),
        label=fields.get("label", ""),
        score=fields.get("score", 0.0),
        scores=[LabelScore(**part) for part in fields.get("scores", ())],
        version=fields.pop("version", 0),
        embedding=fields.get("embedding", ""),
    )
    if error := fields.pop("error", None):
        message.error.code, message.error.message = error["code"], error["message"]
    if fields:
        message.answer_json = orjson.dumps(fields).decode()
    return message


def _options(request: wire.CreateBatchRequest) -> dict[str, Any]:
    """Raises BadField or Malformed."""
    try:
        options = orjson.loads(request.options_json or "{}")
    except orjson.JSONDecodeError as error:
        raise Malformed(problem="it is not JSON", field="options_json") from error
    if not isinstance(options, dict):
        raise BadField(name="options_json", problem="it must be a JSON object", field="options_json")
    flags = {name: True for name in ("with_embeddings", "whole_texts") if getattr(request, name)}
    return {**options, **flags}
