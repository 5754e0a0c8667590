"""The gRPC door: one call, or one persistent stream with many requests under way at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from opentelemetry.trace import SpanKind

from services.contracts.errors import InternalError, Refusal
from services.contracts.rpc import inference_pb2 as pb
from services.contracts.rpc import inference_pb2_grpc
from services.inference.handlers import classify
from services.inference.inbound.wire import (
    to_command,
    to_embed_command,
    to_embed_response,
    to_failure,
    to_response,
)
from services.inference.ports import Ports
from services.kit.core import telemetry
from services.kit.core.log import logger

SERVICE_NAME: Final = "millrace.v1.InferenceService"
QUIET_SECONDS: Final = 0.3
LEAVE_SECONDS: Final = 8.0


class InferenceRpc(inference_pb2_grpc.InferenceServiceServicer):
    """Translates to `handlers.classify`. Open streams are ended by `close`, after their last answer."""

    def __init__(self, ports: Ports, load_seconds: float) -> None:
        self._ports = ports
        self._load_seconds = load_seconds
        self._streams: set[_Conversation] = set()

    async def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:
        command = to_command(request, self._ports.clock.monotonic(), context.time_remaining(), self._ports.bounds)
        return to_response(await classify(command, self._ports), with_embeddings=request.with_embeddings)

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        command = to_embed_command(request, self._ports.clock.monotonic(), context.time_remaining(), self._ports.bounds)
        return to_embed_response(await classify(command, self._ports))

    async def Stream(
        self, request_iterator: AsyncIterator[pb.StreamRequest], context: Any
    ) -> AsyncIterator[pb.StreamResponse]:
        conversation = _Conversation(self._ports, self._load_seconds)
        self._streams.add(conversation)
        try:
            async for answer in conversation.answers(request_iterator):
                yield answer
        finally:
            self._streams.discard(conversation)
            await conversation.end()

    async def close(self) -> None:
        """Asks every stream to end once it has been quiet for a moment; waits for that at most eight seconds."""
        for conversation in self._streams:
            conversation.leave()
        deadline = self._ports.clock.monotonic() + LEAVE_SECONDS
        while self._streams and self._ports.clock.monotonic() < deadline:
            await self._ports.clock.sleep(0.05)


class _Conversation:
    """One stream: reads requests, answers each when it is ready, tells the load when it has changed.

    No more requests are read than twice the queue's capacity are unanswered: a caller that does not read its answers
    is held back by flow control, not by our memory.
    """

    def __init__(self, ports: Ports, load_seconds: float) -> None:
        self._ports = ports
        self._load_seconds = load_seconds
        self._outgoing: asyncio.Queue[pb.StreamResponse | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(2 * ports.engines.capacity)
        self._requests: set[asyncio.Task[None]] = set()
        self._others: list[asyncio.Task[None]] = []

    async def answers(self, requests: AsyncIterator[pb.StreamRequest]) -> AsyncIterator[pb.StreamResponse]:
        """Until the caller has ended its side and has every answer, or until `leave`."""
        self._others = [asyncio.create_task(self._listen(requests)), asyncio.create_task(self._tell_load())]
        while (answer := await self._outgoing.get()) is not None:
            yield answer
            if answer.id:
                self._room.release()

    def leave(self) -> None:
        self._others.append(asyncio.create_task(self._end_when_quiet()))

    async def end(self) -> None:
        """Cancels what is left; returns once nothing of this stream runs."""
        left = [*self._requests, *self._others]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _listen(self, requests: AsyncIterator[pb.StreamRequest]) -> None:
        await self._room.acquire()
        async for request in requests:
            task = asyncio.create_task(self._answer(request))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)
            await self._room.acquire()
        if self._requests:
            await asyncio.wait(self._requests)
        self._outgoing.put_nowait(None)

    async def _answer(self, request: pb.StreamRequest) -> None:
        response = pb.StreamResponse(id=request.id)
        try:
            response.response.CopyFrom(await self._classify(request))
        except Refusal as refusal:
            response.failure.CopyFrom(to_failure(refusal))
        except Exception:  # noqa: BLE001 - one broken request must not end the stream of all others
            logger.exception("a request on a stream broke")
            response.failure.CopyFrom(to_failure(InternalError()))
        self._outgoing.put_nowait(response)

    async def _classify(self, request: pb.StreamRequest) -> pb.ClassifyResponse:
        seconds_left = request.deadline_ms / 1000 if request.deadline_ms else None
        command = to_command(request.classify, self._ports.clock.monotonic(), seconds_left, self._ports.bounds)
        embeddings = request.classify.with_embeddings
        if not _is_sampled(request.traceparent):
            return to_response(await classify(command, self._ports), with_embeddings=embeddings)
        with telemetry.span(
            f"classify {command.deployment}",
            kind=SpanKind.SERVER,
            parent={"traceparent": request.traceparent},
            attributes={
                "rpc.system": "grpc",
                "rpc.service": SERVICE_NAME,
                "rpc.method": "Stream",
                "millrace.deployment": command.deployment,
                "millrace.texts": len(command.texts),
            },
        ) as span:
            classified = await classify(command, self._ports)
            span.set_attribute("millrace.version", classified.version)
            return to_response(classified, with_embeddings=embeddings)

    async def _tell_load(self) -> None:
        told = -1
        while True:
            queued = self._ports.engines.queued
            if queued != told:
                told = queued
                load = pb.Load(queued=queued, capacity=self._ports.engines.capacity)
                self._outgoing.put_nowait(pb.StreamResponse(load=load))
            await self._ports.clock.sleep(self._load_seconds)

    async def _end_when_quiet(self) -> None:
        """The caller has been told that this replica leaves; its last requests are still on their way."""
        quiet = 0.0
        while quiet < QUIET_SECONDS:
            await self._ports.clock.sleep(QUIET_SECONDS / 6)
            quiet = 0.0 if self._requests else quiet + QUIET_SECONDS / 6
        self._outgoing.put_nowait(None)


def _is_sampled(traceparent: str) -> bool:
    """Whether the caller keeps this trace (W3C trace context, the flags' lowest bit)."""
    return len(traceparent) == 55 and traceparent[-1] in "13579bdf"
