"""Requests of every task by gRPC, one by one or on a stream. Payloads come and go as bytes: each is opened once, to be
checked, and passed on as it came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import grpc

from services.contracts.errors import InternalError, MillraceError
from services.contracts.rpc import inference_pb2
from services.contracts.rpc.replica_pb2 import GenerateEventFrame, StreamRequestFrame, StreamResponseFrame
from services.contracts.tasks.stream import Delta
from services.gateway.domain.requests import Predict
from services.gateway.handlers import answer, predict
from services.gateway.inbound.converters import (
    Converter,
    Edge,
    read_classify,
    read_embed,
    read_frame,
    read_generate,
    write_event,
    write_generated,
)
from services.gateway.inbound.grpc import seconds_left
from services.gateway.inbound.sampling import Sampler
from services.gateway.ports import Limiter, Ports
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.identity.auth import Principal
from services.kit.transport.failures import to_failure
from services.kit.transport.grpc_requests import caller

SERVICE: Final = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
STREAM_IN_FLIGHT: Final = 64
"""Requests of one client stream that are worked on at once; more wait unread."""


class InferenceRpc:
    """Translates; the rules are the handlers'."""

    def __init__(self, ports: Ports, sampler: Sampler, limiter: Limiter, *, request_seconds: float) -> None:
        self._ports = ports
        self._sampler = sampler
        self._limiter = limiter
        self._request_seconds = request_seconds

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods of the service, those with one answer taking and giving bytes."""
        methods = {
            "Classify": grpc.unary_unary_rpc_method_handler(partial(self._unary, read_classify)),
            "Embed": grpc.unary_unary_rpc_method_handler(partial(self._unary, read_embed)),
            "Generate": grpc.unary_stream_rpc_method_handler(
                self._generate, response_serializer=GenerateEventFrame.SerializeToString
            ),
            "Stream": grpc.stream_stream_rpc_method_handler(
                self._stream,
                request_deserializer=StreamRequestFrame.FromString,
                response_serializer=StreamResponseFrame.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    async def _unary(self, read: Converter, payload: bytes, context: Any) -> bytes:
        edge = self._edge(caller(), seconds_left(context, self._request_seconds))
        return (await answer(read(payload, edge), self._ports)).payload

    async def _generate(self, payload: bytes, context: Any) -> AsyncIterator[GenerateEventFrame]:
        edge = self._edge(caller(), seconds_left(context, self._ports.policy.stream_seconds))
        async with aclosing(predict(read_generate(payload, edge), self._ports)) as events:
            async for event in events:
                yield write_generated(event)

    async def _stream(self, frames: AsyncIterator[StreamRequestFrame], context: Any) -> None:
        principal = caller()
        slots = asyncio.Semaphore(STREAM_IN_FLIGHT)
        writing = asyncio.Lock()  # gRPC takes one write at a time

        async def write(frame: StreamResponseFrame) -> None:
            async with writing:
                await context.write(frame)

        async def serve(frame: StreamRequestFrame) -> None:
            try:
                async for response in self._answered(frame, principal):
                    await write(response)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group:
            async for frame in frames:
                await slots.acquire()
                group.create_task(serve(frame))

    async def _answered(self, frame: StreamRequestFrame, principal: Principal) -> AsyncIterator[StreamResponseFrame]:
        sampling = self._sampler.decide(frame.traceparent or None)
        seconds = min(frame.deadline_ms / 1000 or self._request_seconds, self._request_seconds)
        try:
            permit = await self._limiter.admit(principal)
            try:
                command = read_frame(frame, self._edge(principal, seconds), self._ports.tasks)
                with telemetry.following(sampling.unsampled or sampling.carrier.get("traceparent", "")):
                    async for response in self._events(frame, command):
                        yield response
            finally:
                permit.release()
        except MillraceError as error:
            yield StreamResponseFrame(id=frame.id, failure=to_failure(error))
        except Exception:  # noqa: BLE001 - one request of many; the stream goes on
            logger.exception("a request on a stream failed inside")
            yield StreamResponseFrame(id=frame.id, failure=to_failure(InternalError()))

    async def _events(self, frame: StreamRequestFrame, command: Predict) -> AsyncIterator[StreamResponseFrame]:
        async with aclosing(predict(command, self._ports)) as events:
            async for event in events:
                yield write_event(frame, command, event)
                if not isinstance(event, Delta):
                    return

    def _edge(self, principal: Principal, seconds: float) -> Edge:
        return Edge(principal.tenant, self._ports.clock.monotonic() + seconds, self._ports.ids)
