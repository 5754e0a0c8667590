"""The gRPC endpoint: one persistent stream a gateway, with many requests of any task under way at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from opentelemetry.trace import SpanKind

from services.contracts.errors import InternalError, MillraceError
from services.contracts.rpc import inference_pb2, replica_pb2_grpc
from services.contracts.rpc import replica_pb2 as pb
from services.inference.handlers.predictions import Predict, predict
from services.inference.inbound.converters import to_command, to_event
from services.inference.ports import Ports
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.transport.failures import to_failure

SERVICE_NAME: Final = "millrace.v1.ReplicaService"
QUIET_SECONDS: Final = 0.3
LEAVE_SECONDS: Final = 8.0


class ReplicaRpc(replica_pb2_grpc.ReplicaServiceServicer):
    """Translates to `handlers.predict`. Open streams are ended by `close`, after their last answer."""

    def __init__(self, ports: Ports, load_seconds: float) -> None:
        self._ports = ports
        self._load_seconds = load_seconds
        self._streams: set[_Conversation] = set()

    async def Predict(
        self, request_iterator: AsyncIterator[pb.ReplicaRequest], context: Any
    ) -> AsyncIterator[pb.ReplicaEvent]:
        conversation = _Conversation(self._ports, self._load_seconds)
        self._streams.add(conversation)
        try:
            async for event in conversation.events(request_iterator):
                yield event
        finally:
            self._streams.discard(conversation)
            await conversation.end()

    async def close(self) -> None:
        """Asks every stream to end once it has been quiet for a moment; waits for that at most eight seconds."""
        for conversation in self._streams:
            conversation.drain()
        deadline = self._ports.clock.monotonic() + LEAVE_SECONDS
        while self._streams and self._ports.clock.monotonic() < deadline:
            await self._ports.clock.sleep(0.05)


class _Conversation:
    """One stream: reads requests, sends the events of each as they come, tells the load when it has changed.

    No more requests are read than twice the queue's capacity are unanswered, and no more events wait to be sent: a
    caller that does not read is held back by flow control, not by our memory.
    """

    def __init__(self, ports: Ports, load_seconds: float) -> None:
        self._ports = ports
        self._load_seconds = load_seconds
        self._limit = 2 * ports.engines.capacity
        self._outgoing: asyncio.Queue[pb.ReplicaEvent | None] = asyncio.Queue(self._limit)
        self._slots = asyncio.Semaphore(self._limit)
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._others: list[asyncio.Task[None]] = []

    async def events(self, requests: AsyncIterator[pb.ReplicaRequest]) -> AsyncIterator[pb.ReplicaEvent]:
        """Until the caller has ended its side and has every answer, or until `leave`."""
        self._others = [asyncio.create_task(self._listen(requests)), asyncio.create_task(self._send_load())]
        while (event := await self._outgoing.get()) is not None:
            yield event

    def drain(self) -> None:
        self._others.append(asyncio.create_task(self._end_when_quiet()))

    async def end(self) -> None:
        """Cancels what is left; returns once nothing of this stream runs."""
        left = [*self._requests.values(), *self._others]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _listen(self, requests: AsyncIterator[pb.ReplicaRequest]) -> None:
        async for request in requests:
            if request.WhichOneof("body") == "cancel":
                if (task := self._requests.get(request.id)) is not None:
                    task.cancel()
                continue
            await self._slots.acquire()
            task = asyncio.create_task(self._answer(request.id, request.predict))
            self._requests[request.id] = task
            task.add_done_callback(partial(self._ended, request.id))
        if self._requests:
            await asyncio.wait(self._requests.values())
        await self._outgoing.put(None)

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        self._requests.pop(number, None)
        self._slots.release()

    async def _answer(self, number: int, request: pb.TaskRequest) -> None:
        try:
            command = to_command(request, self._ports.clock.monotonic(), self._ports.bounds)
            if _is_sampled(request.traceparent):
                await self._answer_in_span(number, command, request.traceparent)
            else:
                await self._send_events(number, command)
        except MillraceError as error:
            await self._outgoing.put(pb.ReplicaEvent(id=number, failure=to_failure(error)))
        except Exception:  # noqa: BLE001 - one broken request must not end the stream of all others
            logger.exception("a request on a stream broke")
            await self._outgoing.put(pb.ReplicaEvent(id=number, failure=to_failure(InternalError())))

    async def _answer_in_span(self, number: int, command: Predict, traceparent: str) -> None:
        with telemetry.span(
            f"{command.task} {command.deployment}",
            kind=SpanKind.SERVER,
            parent={"traceparent": traceparent},
            attributes={
                "rpc.system": "grpc",
                "rpc.service": SERVICE_NAME,
                "rpc.method": "Predict",
                "millrace.deployment": command.deployment,
                "millrace.task": command.task,
            },
        ) as span:
            span.set_attribute("millrace.version", await self._send_events(number, command))

    async def _send_events(self, number: int, command: Predict) -> int:
        """Returns the version that answered."""
        version = 0
        async with aclosing(predict(command, self._ports)) as events:
            async for event in events:
                message = to_event(number, event)
                version = message.result.version
                await self._outgoing.put(message)
        return version

    async def _send_load(self) -> None:
        reports = -1
        while True:
            queued = self._ports.engines.queued
            if queued != reports:
                reports = queued
                load = inference_pb2.Load(queued=queued, capacity=self._ports.engines.capacity)
                await self._outgoing.put(pb.ReplicaEvent(load=load))
            await self._ports.clock.sleep(self._load_seconds)

    async def _end_when_quiet(self) -> None:
        """The caller has been told that this replica leaves; its last requests are still on their way."""
        quiet = 0.0
        while quiet < QUIET_SECONDS:
            await self._ports.clock.sleep(QUIET_SECONDS / 6)
            quiet = 0.0 if self._requests else quiet + QUIET_SECONDS / 6
        await self._outgoing.put(None)


def _is_sampled(traceparent: str) -> bool:
    """Whether the caller keeps this trace (W3C trace context, the flags' lowest bit)."""
    return len(traceparent) == 55 and traceparent[-1] in "13579bdf"
