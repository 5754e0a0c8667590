"""One persistent gRPC stream to each inference replica, and the mirrored requests.

A stream carries requests in any number and the events of each in their order; each has an id. It is
opened again, with growing pauses, until the replica is gone from the routing table.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from contextvars import Context
from typing import Any, Final

import grpc

from services.contracts.errors import MillraceError, TimedOut
from services.contracts.rpc import replica_pb2 as pb
from services.contracts.rpc import replica_pb2_grpc
from services.contracts.tasks.stream import Delta, PredictEvent, Result
from services.gateway.domain.routing import Replica
from services.gateway.errors import DeadlinePassed, ReplicaFull, ReplicaLost, ReplicaSilent, SlowReader
from services.gateway.ports import ReplicaRequest, Replicas
from services.gateway.telemetry import MIRRORS, STREAMS
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.transport.failures import from_failure
from services.kit.transport.rpc import MAX_MESSAGE_BYTES

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
RETRY_AFTER_SECONDS: Final = 1.0
UNREAD_EVENTS: Final = 1_000
"""Of one answer; whoever reads more slowly is refused the rest."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Without it a new channel shares the old one's connection, a dead one too.
    ("grpc.use_local_subchannel_pool", 1),
)


class _Events:
    """The events of one request that have come and were not read yet."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: asyncio.Queue[PredictEvent | MillraceError] = asyncio.Queue(UNREAD_EVENTS)

    def put(self, event: PredictEvent | MillraceError) -> None:
        if self._queue.full():
            while not self._queue.empty():
                self._queue.get_nowait()
            event = SlowReader()
        self._queue.put_nowait(event)

    async def get(self) -> PredictEvent | MillraceError:
        return await self._queue.get()


class _ReplicaConnection:
    """The stream to one replica."""

    def __init__(self, replica: Replica, *, key: str, clock: Clock, attempt_seconds: float) -> None:
        self.address = replica.address
        self.capacity = replica.capacity
        self.reported_queue = 0
        self._id = replica.id
        self._key = key
        self._clock = clock
        self._attempt_seconds = attempt_seconds
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Events] = {}
        self._outgoing: asyncio.Queue[pb.ReplicaRequest] = asyncio.Queue()
        self._is_open = False
        self._retired = False
        self._received_at = 0.0
        self._has_answered = False
        self._conversation: asyncio.Task[None] | None = None
        # A context of its own: the event that named the replica is not the cause of all that follows.
        self.task = asyncio.create_task(self._run(), name=f"stream to {replica.id}", context=Context())

    def waiting(self) -> int | None:
        if not self._is_open or self._retired:
            return None
        return len(self._pending) + self.reported_queue

    def retire(self) -> None:
        """Takes nothing new, and ends with the last answer that is under way."""
        self._retired = True
        self._end_when_retired()

    async def predict(self, request: ReplicaRequest) -> AsyncGenerator[PredictEvent, None]:
        if not self._is_open:
            raise ReplicaLost(retry_after_seconds=RETRY_AFTER_SECONDS)
        if len(self._pending) >= self.capacity:
            raise ReplicaFull(queued=len(self._pending), retry_after_seconds=RETRY_AFTER_SECONDS)
        left = request.deadline - self._clock.monotonic()
        if left <= 0:
            raise DeadlinePassed
        number = next(self._numbers)
        events = self._pending[number] = _Events()
        outgoing, ended = self._outgoing, False
        outgoing.put_nowait(_to_message(number, request, left))
        try:
            while not ended:
                event = await self._next(events, request)
                ended = not isinstance(event, Delta)
                if isinstance(event, MillraceError):
                    raise event
                yield event
        finally:
            self._pending.pop(number, None)
            if not ended:  # on the stream that it was sent on: a new one knows nothing of it
                outgoing.put_nowait(pb.ReplicaRequest(id=number, cancel=pb.Cancel()))
            self._end_when_retired()

    async def _next(self, events: _Events, request: ReplicaRequest) -> PredictEvent | MillraceError:
        """The next event; an answer that is on its way may take long, if only something comes of it in between.

        One that is generated waits for others to end: while anything comes on the stream, the replica is at work.
        """
        while True:
            left = request.deadline - self._clock.monotonic()
            try:
                async with asyncio.timeout(min(left, self._attempt_seconds)):
                    return await events.get()
            except TimeoutError as error:
                silent = self._is_silent()
                if silent and self._conversation is not None:
                    self._conversation.cancel()  # given up, and opened anew
                if left <= self._attempt_seconds:
                    raise TimedOut(seconds=round(left, 3)) from error
                if silent or not request.streams:
                    seconds = self._attempt_seconds
                    raise ReplicaSilent(seconds=seconds, retry_after_seconds=RETRY_AFTER_SECONDS) from error

    def _is_silent(self) -> bool:
        """Nothing at all came on the stream for so long."""
        return self._clock.monotonic() - self._received_at >= self._attempt_seconds

    def _end_when_retired(self) -> None:
        if self._retired and not self._pending:
            self.task.cancel()

    # --- the conversation

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        try:
            while True:
                self._conversation = asyncio.create_task(self._converse())
                await asyncio.wait({self._conversation})
                if not self._conversation.cancelled() and (error := self._conversation.exception()) is not None:
                    logger.error("the stream to %s failed", self._id, exc_info=error)
                if self._has_answered:
                    pause = FIRST_PAUSE_SECONDS
                self._lose()
                await self._clock.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        finally:
            self._lose()
            if self._conversation is not None:
                self._conversation.cancel()
                await asyncio.gather(self._conversation, return_exceptions=True)

    async def _converse(self) -> None:
        """Returns when the stream has ended, whichever side ended it."""
        try:
            async with grpc.aio.insecure_channel(self.address, options=_OPTIONS) as channel:
                await channel.channel_ready()
                stub: Any = replica_pb2_grpc.ReplicaServiceStub(channel)
                call = stub.Predict(metadata=(("authorization", f"Bearer {self._key}"),))
                self._open()
                writer = asyncio.create_task(self._write(call))
                try:
                    while (message := await call.read()) is not grpc.aio.EOF:
                        self._take(message)
                finally:
                    writer.cancel()
                    await asyncio.gather(writer, return_exceptions=True)
        except grpc.aio.AioRpcError as error:
            logger.warning("the stream to %s broke: %s", self._id, error.code().name)

    async def _write(self, call: Any) -> None:
        while True:
            await call.write(await self._outgoing.get())

    def _open(self) -> None:
        self._outgoing = asyncio.Queue()
        self.reported_queue = 0
        self._received_at = self._clock.monotonic()
        self._has_answered = False
        self._is_open = True
        STREAMS.add(1)
        logger.info("the stream to %s is open", self._id)

    def _lose(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        STREAMS.add(-1)
        for events in self._pending.values():
            events.put(ReplicaLost(retry_after_seconds=RETRY_AFTER_SECONDS))

    def _take(self, message: pb.ReplicaEvent) -> None:
        self._received_at = self._clock.monotonic()
        self._has_answered = True
        if message.WhichOneof("event") == "load":
            self.reported_queue = message.load.queued
            self.capacity = message.load.capacity or self.capacity
            return
        events = self._pending.get(message.id)
        if events is not None:  # else whoever asked has given up
            events.put(_from_message(message))


class ReplicaConnections(Replicas):
    """Keeps a line to each replica of the routing table."""

    def __init__(self, *, key: str, clock: Clock, attempt_seconds: float) -> None:
        self._key = key
        self._clock = clock
        self._attempt_seconds = attempt_seconds
        self._lines: dict[str, _ReplicaConnection] = {}
        self._retired: set[_ReplicaConnection] = set()

    def keep(self, replicas: Iterable[Replica]) -> None:
        desired = {replica.id: replica for replica in replicas if not replica.leaving}
        for name, line in list(self._lines.items()):
            replica = desired.get(name)
            if replica is None or replica.address != line.address:
                self._retire(self._lines.pop(name))
            else:
                line.capacity = replica.capacity
        for name, replica in desired.items():
            if name not in self._lines:
                self._lines[name] = _ReplicaConnection(
                    replica, key=self._key, clock=self._clock, attempt_seconds=self._attempt_seconds
                )

    def waiting(self, replica: str) -> int | None:
        line = self._lines.get(replica)
        return line.waiting() if line is not None else None

    def predict(self, replica: str, request: ReplicaRequest) -> AsyncGenerator[PredictEvent, None]:
        line = self._lines.get(replica)
        if line is None:
            raise ReplicaLost(retry_after_seconds=RETRY_AFTER_SECONDS)
        return line.predict(request)

    async def close(self) -> None:
        lines = [*self._lines.values(), *self._retired]
        for line in lines:
            line.task.cancel()
        await asyncio.gather(*(line.task for line in lines), return_exceptions=True)

    def _retire(self, line: _ReplicaConnection) -> None:
        self._retired.add(line)
        line.task.add_done_callback(lambda _: self._retired.discard(line))
        line.retire()


class ShadowTraffic:
    """Owns the mirrored requests under way; at its limit it drops new ones, and counts them."""

    def __init__(self, replicas: Replicas, *, limit: int) -> None:
        self._replicas = replicas
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, replica: str, request: ReplicaRequest) -> None:
        if len(self._tasks) >= self._limit:
            MIRRORS.add(1, tenant=request.tenant, outcome="dropped")
            return
        task = asyncio.create_task(self._send_shadow(replica, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send_shadow(self, replica: str, request: ReplicaRequest) -> None:
        try:
            async with aclosing(self._replicas.predict(replica, request)) as events:
                async for _ in events:
                    pass
            MIRRORS.add(1, tenant=request.tenant, outcome="answered")
        except MillraceError:
            MIRRORS.add(1, tenant=request.tenant, outcome="failed")


def _to_message(number: int, request: ReplicaRequest, left_seconds: float) -> pb.ReplicaRequest:
    predict = pb.TaskRequest(
        tenant=request.tenant,
        deployment=request.deployment,
        model=request.model,
        version=request.version,
        request_id=request.request_id,
        task=request.task,
        payload=request.payload,
        source=request.source.value,
        deadline_ms=max(1, int(left_seconds * 1000)),
        traceparent=telemetry.current_traceparent(),
    )
    return pb.ReplicaRequest(id=number, predict=predict)


def _from_message(message: pb.ReplicaEvent) -> PredictEvent | MillraceError:
    kind = message.WhichOneof("event")
    if kind == "delta":
        return Delta(message.delta.payload)
    if kind == "result":
        result = message.result
        return Result(result.payload, result.model, result.version, result.tokens)
    return from_failure(message.failure)
