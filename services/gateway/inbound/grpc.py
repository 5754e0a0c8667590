"""The gRPC endpoints: the gateway's own services, and a forwarder for those of the other services."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from opentelemetry.trace import SpanKind

from services.contracts.errors import Malformed, MillraceError
from services.contracts.rpc import (
    batches_pb2,
    batches_pb2_grpc,
    dead_letters_pb2,
    dead_letters_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
)
from services.gateway.domain.requests import Caller
from services.gateway.domain.uploads import NewContent
from services.gateway.handlers import announce_dataset, send_feedback, upload_dataset
from services.gateway.handlers.batches import read_output
from services.gateway.inbound import batches, converters, dead_letters
from services.gateway.inbound.forwarding import passed_on
from services.gateway.inbound.keys import answer_create, answer_list, answer_revoke
from services.gateway.inbound.uploading import Pace, UploadTimeouts
from services.gateway.ports import Metadata, Ports, Upstreams
from services.kit.core import telemetry
from services.kit.core.idempotency import FIELD
from services.kit.transport.grpc_requests import caller

DISCARD_SECONDS: Final = 1.0


def _metadata(context: Any) -> dict[str, str]:
    return {str(name): value for name, value in context.invocation_metadata() if isinstance(value, str)}


def seconds_left(context: Any, limit: float) -> float:
    """What the caller's deadline leaves, within our own limit."""
    left = context.time_remaining()
    return limit if left is None else max(0.0, min(float(left), limit))


def _caller(context: Any) -> Caller:
    principal = caller()
    key = _metadata(context).get(FIELD, "")
    return Caller(tenant=principal.tenant, idempotency_key=key, actor=principal.actor)


class GatewayRpc(gateway_pb2_grpc.GatewayServiceServicer):
    def __init__(self, ports: Ports, timeouts: UploadTimeouts) -> None:
        self._ports = ports
        self._timeouts = timeouts

    async def AnnounceDataset(self, request: gateway_pb2.AnnounceDatasetRequest, context: Any) -> gateway_pb2.Accepted:
        event = converters.dataset_ready(request)
        return converters.accepted(await announce_dataset(event, _caller(context), self._ports))

    async def SendFeedback(self, request: gateway_pb2.SendFeedbackRequest, context: Any) -> gateway_pb2.Accepted:
        event = converters.feedback_received(request)
        return converters.accepted(await send_feedback(event, _caller(context), self._ports))

    async def UploadDataset(  # type: ignore[override]
        self, requests: AsyncIterator[gateway_pb2.UploadDatasetRequest], context: Any
    ) -> None:
        caller = _caller(context)
        pace = Pace(self._ports.clock, lambda received: context.write(_progress(received)))
        try:
            with telemetry.span("UploadDataset", kind=SpanKind.SERVER, parent=_metadata(context)):
                content, chunks = await self._header(requests), self._chunks(requests)
                async with self._timeouts.time_limit():
                    uploaded = await upload_dataset(content, chunks, caller, self._ports, pace.report)
        except MillraceError:
            await _discard(requests)
            raise
        await context.write(gateway_pb2.UploadDatasetResponse(uploaded=converters.uploaded(uploaded)))

    async def _header(self, requests: AsyncIterator[gateway_pb2.UploadDatasetRequest]) -> NewContent:
        """Raises StalledUpload or Malformed."""
        first = await self._timeouts.part(anext(aiter(requests), None))
        if first is None or first.WhichOneof("part") != "header":
            raise Malformed(problem="an upload begins with its header", field="header")
        return converters.upload_header(first.header)

    async def _chunks(self, requests: AsyncIterator[gateway_pb2.UploadDatasetRequest]) -> AsyncIterator[bytes]:
        """Until the client ends its side of the stream. Raises StalledUpload or Malformed."""
        parts = aiter(requests)
        while (request := await self._timeouts.part(anext(parts, None))) is not None:
            if request.WhichOneof("part") != "chunk":
                raise Malformed(problem="after the header only chunks may come", field="chunk")
            yield request.chunk


class BatchRpc(batches_pb2_grpc.BatchServiceServicer):
    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def CreateBatch(self, request: batches_pb2.CreateBatchRequest, context: Any) -> batches_pb2.Batch:
        return await batches.create(request, _caller(context), self._ports)

    async def CancelBatch(self, request: batches_pb2.CancelBatchRequest, context: Any) -> batches_pb2.Batch:
        return await batches.cancel(request, _caller(context), self._ports)

    async def GetBatch(self, request: batches_pb2.GetBatchRequest, context: Any) -> batches_pb2.Batch:
        return await batches.get(request, _caller(context), self._ports)

    async def ListBatches(
        self, request: batches_pb2.ListBatchesRequest, context: Any
    ) -> batches_pb2.ListBatchesResponse:
        return await batches.list_all(request, _caller(context), self._ports)

    async def GetBatchOutput(
        self, request: batches_pb2.GetBatchOutputRequest, context: Any
    ) -> AsyncIterator[batches_pb2.BatchRow]:
        _, chunks = await read_output(_caller(context).tenant, request.batch, self._ports)
        rest = b""
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield batches.row_message(line)


class KeyRpc(keys_pb2_grpc.KeyServiceServicer):
    """Each method is for an admin, about the keys of its own tenant."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def CreateKey(self, request: keys_pb2.CreateKeyRequest, context: Any) -> keys_pb2.CreateKeyResponse:
        return await answer_create(request, _caller(context), self._ports)

    async def ListKeys(self, request: keys_pb2.ListKeysRequest, context: Any) -> keys_pb2.ListKeysResponse:
        return await answer_list(request, _caller(context), self._ports)

    async def RevokeKey(self, request: keys_pb2.RevokeKeyRequest, context: Any) -> keys_pb2.Key:
        return await answer_revoke(request, _caller(context), self._ports)


class DeadLetterRpc(dead_letters_pb2_grpc.DeadLetterServiceServicer):
    """Each method is for an admin, about the dead letters of its own tenant."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def ListDeadLetters(
        self, request: dead_letters_pb2.ListDeadLettersRequest, context: Any
    ) -> dead_letters_pb2.ListDeadLettersResponse:
        return await dead_letters.list_all(request, _caller(context), self._ports)

    async def GetDeadLetter(
        self, request: dead_letters_pb2.GetDeadLetterRequest, context: Any
    ) -> dead_letters_pb2.DeadLetterContent:
        return await dead_letters.get(request, _caller(context), self._ports)

    async def RedeliverDeadLetters(
        self, request: dead_letters_pb2.RedeliverDeadLettersRequest, context: Any
    ) -> dead_letters_pb2.RedeliverDeadLettersResponse:
        return await dead_letters.redeliver(request, _caller(context), self._ports)


async def _discard(requests: AsyncIterator[gateway_pb2.UploadDatasetRequest]) -> None:
    """Reads on for a moment: a client that is still sending when the call ends may not see why it did."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            async for _ in requests:
                pass


def _progress(received_bytes: int) -> gateway_pb2.UploadDatasetResponse:
    return gateway_pb2.UploadDatasetResponse(progress=gateway_pb2.UploadProgress(received_bytes=received_bytes))


class Forwarder(grpc.GenericRpcHandler):
    """Passes the methods of other services on, as bytes: authenticated here, judged by their owner.

    The caller's own key and the trace go along, so that the owner knows who asks.
    """

    def __init__(
        self,
        services: Collection[ServiceDescriptor],
        upstreams: Upstreams,
        *,
        request_seconds: float,
        follow_seconds: float,
    ) -> None:
        self._methods: Mapping[str, MethodDescriptor] = {
            f"/{service.full_name}/{method.name}": method for service in services for method in service.methods
        }
        self._upstreams = upstreams
        self._request_seconds = request_seconds
        self._follow_seconds = follow_seconds

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        method = self._methods.get(path)
        if method is None:
            return None
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(path, method))
        return grpc.unary_unary_rpc_method_handler(self._unary(path, method))

    def _unary(self, path: str, method: MethodDescriptor) -> Any:
        async def forward(request: bytes, context: Any) -> bytes:
            seconds = seconds_left(context, self._request_seconds)
            return await self._upstreams.call(
                path, request, self._passed_on(context), tenant=caller().tenant, seconds=seconds
            )

        return forward

    def _streaming(self, path: str, method: MethodDescriptor) -> Any:
        async def forward(request: bytes, context: Any) -> AsyncIterator[bytes]:
            seconds = seconds_left(context, self._follow_seconds)
            answers = self._upstreams.stream(
                path, request, self._passed_on(context), tenant=caller().tenant, seconds=seconds
            )
            async for answer in answers:
                yield answer

        return forward

    def _passed_on(self, context: Any) -> Metadata:
        sent = _metadata(context)
        trace = telemetry.current_carrier() or {
            name: sent[name] for name in ("traceparent", "tracestate") if name in sent
        }
        return [("authorization", sent.get("authorization", "")), *passed_on(sent.get(FIELD, "")), *trace.items()]
