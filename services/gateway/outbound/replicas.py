"""One persistent gRPC stream to each inference replica, and the mirrored questions.

A stream carries requests in any number and answers in the order they are ready; each has an id. It is
opened again, with growing pauses, until the replica is gone from the routing table.
"""

import asyncio
import itertools
from array import array
from collections.abc import Iterable
from contextvars import Context
from typing import Any, Final

import grpc

from services.contracts.errors import ErrorBody, Kind, Refusal, Relayed, TimedOut
from services.contracts.rpc import inference_pb2, inference_pb2_grpc
from services.gateway.domain.requests import Answer, LabelScore, Prediction
from services.gateway.domain.routing import Replica
from services.gateway.errors import DeadlinePassed, ReplicaFull, ReplicaLost, ReplicaSilent
from services.gateway.ports import Question, Replicas
from services.gateway.telemetry import MIRRORS, STREAMS
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.transport.rpc import MAX_MESSAGE_BYTES

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
RETRY_AFTER_SECONDS: Final = 1.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Without it a new channel shares the old one's connection, a dead one too.
    ("grpc.use_local_subchannel_pool", 1),
)


class _Line:
    """The stream to one replica."""

    def __init__(self, replica: Replica, *, key: str, clock: Clock, attempt_seconds: float) -> None:
        self.address = replica.address
        self.capacity = replica.capacity
        self.told_queued = 0
        self._id = replica.id
        self._key = key
        self._clock = clock
        self._attempt_seconds = attempt_seconds
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._outgoing: asyncio.Queue[inference_pb2.StreamRequest] = asyncio.Queue()
        self._is_open = False
        self._retired = False
        self._heard_at = 0.0
        self._has_answered = False
        self._conversation: asyncio.Task[None] | None = None
        # A context of its own: the event that named the replica is not the cause of all that follows.
        self.task = asyncio.create_task(self._run(), name=f"stream to {replica.id}", context=Context())

    def waiting(self) -> int | None:
        if not self._is_open or self._retired:
            return None
        return len(self._pending) + self.told_queued

    def retire(self) -> None:
        """Takes nothing new, and ends with the last answer that is under way."""
        self._retired = True
        self._end_when_retired()

    async def ask(self, question: Question) -> Answer:
        if not self._is_open:
            raise ReplicaLost(retry_after_seconds=RETRY_AFTER_SECONDS)
        if len(self._pending) >= self.capacity:
            raise ReplicaFull(queued=len(self._pending), retry_after_seconds=RETRY_AFTER_SECONDS)
        left = question.deadline - self._clock.monotonic()
        if left <= 0:
            raise DeadlinePassed
        number = next(self._numbers)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        self._outgoing.put_nowait(_stream_request(number, question, left))
        try:
            async with asyncio.timeout(min(left, self._attempt_seconds)):
                return await answer
        except TimeoutError as error:
            self._suspect()
            if left <= self._attempt_seconds:
                raise TimedOut(seconds=round(left, 3)) from error
            raise ReplicaSilent(seconds=self._attempt_seconds, retry_after_seconds=RETRY_AFTER_SECONDS) from error
        finally:
            self._pending.pop(number, None)
            self._end_when_retired()

    def _suspect(self) -> None:
        """A stream on which nothing at all was heard for so long is given up and opened anew."""
        if self._conversation is not None and self._clock.monotonic() - self._heard_at >= self._attempt_seconds:
            self._conversation.cancel()

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
                stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
                call = stub.Stream(metadata=(("authorization", f"Bearer {self._key}"),))
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
        self.told_queued = 0
        self._heard_at = self._clock.monotonic()
        self._has_answered = False
        self._is_open = True
        STREAMS.add(1)
        logger.info("the stream to %s is open", self._id)

    def _lose(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        STREAMS.add(-1)
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ReplicaLost(retry_after_seconds=RETRY_AFTER_SECONDS))

    def _take(self, message: inference_pb2.StreamResponse) -> None:
        self._heard_at = self._clock.monotonic()
        self._has_answered = True
        kind = message.WhichOneof("answer")
        if kind == "load":
            self.told_queued = message.load.queued
            self.capacity = message.load.capacity or self.capacity
            return
        answer = self._pending.get(message.id)
        if answer is None or answer.done():
            return  # whoever asked has given up
        if kind == "response":
            answer.set_result(_answer(message.response))
        else:
            answer.set_exception(_refusal(message.failure))


class ReplicaLines(Replicas):
    """Keeps a line to each replica of the routing table."""

    def __init__(self, *, key: str, clock: Clock, attempt_seconds: float) -> None:
        self._key = key
        self._clock = clock
        self._attempt_seconds = attempt_seconds
        self._lines: dict[str, _Line] = {}
        self._retired: set[_Line] = set()

    def keep(self, replicas: Iterable[Replica]) -> None:
        wanted = {replica.id: replica for replica in replicas if not replica.leaving}
        for name, line in list(self._lines.items()):
            replica = wanted.get(name)
            if replica is None or replica.address != line.address:
                self._retire(self._lines.pop(name))
            else:
                line.capacity = replica.capacity
        for name, replica in wanted.items():
            if name not in self._lines:
                self._lines[name] = _Line(
                    replica, key=self._key, clock=self._clock, attempt_seconds=self._attempt_seconds
                )

    def waiting(self, replica: str) -> int | None:
        line = self._lines.get(replica)
        return line.waiting() if line is not None else None

    async def ask(self, replica: str, question: Question) -> Answer:
        line = self._lines.get(replica)
        if line is None:
            raise ReplicaLost(retry_after_seconds=RETRY_AFTER_SECONDS)
        return await line.ask(question)

    async def close(self) -> None:
        lines = [*self._lines.values(), *self._retired]
        for line in lines:
            line.task.cancel()
        await asyncio.gather(*(line.task for line in lines), return_exceptions=True)

    def _retire(self, line: _Line) -> None:
        self._retired.add(line)
        line.task.add_done_callback(lambda _: self._retired.discard(line))
        line.retire()


class MirrorLane:
    """Owns the mirrored questions under way; at its limit it drops new ones, and counts them."""

    def __init__(self, replicas: Replicas, *, limit: int) -> None:
        self._replicas = replicas
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, replica: str, question: Question) -> None:
        if len(self._tasks) >= self._limit:
            MIRRORS.add(1, tenant=question.tenant, outcome="dropped")
            return
        task = asyncio.create_task(self._ask(replica, question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, replica: str, question: Question) -> None:
        try:
            await self._replicas.ask(replica, question)
            MIRRORS.add(1, tenant=question.tenant, outcome="answered")
        except Refusal:
            MIRRORS.add(1, tenant=question.tenant, outcome="failed")


def _stream_request(number: int, question: Question, left_seconds: float) -> inference_pb2.StreamRequest:
    classify = inference_pb2.ClassifyRequest(
        tenant=question.tenant,
        deployment=question.deployment,
        texts=question.texts,
        request_id=question.request,
        version=question.version,
        mirrored=question.mirrored,
        with_embeddings=question.with_embeddings,
        whole_texts=question.whole,
    )
    return inference_pb2.StreamRequest(
        id=number,
        classify=classify,
        traceparent=question.traceparent,
        deadline_ms=max(1, int(left_seconds * 1000)),
    )


def _answer(response: inference_pb2.ClassifyResponse) -> Answer:
    predictions = tuple(
        Prediction(
            label=prediction.label,
            score=prediction.score,
            scores=tuple(LabelScore(label=part.label, score=part.score) for part in prediction.scores),
        )
        for prediction in response.predictions
    )
    return Answer(
        request_id=response.request_id,
        deployment=response.deployment,
        model=response.model,
        version=response.version,
        predictions=predictions,
        tokens=response.tokens,
        embeddings=tuple(array("f", embedding.values) for embedding in response.embeddings),
    )


def _refusal(failure: inference_pb2.Failure) -> Refusal:
    kind = Kind(failure.kind) if failure.kind in set(Kind) else Kind.INTERNAL
    body = ErrorBody(
        code=failure.code or kind.value,
        message=failure.message,
        field=failure.field or None,
        hint=failure.hint or None,
        retry_after_seconds=failure.retry_after_seconds or None,
    )
    return Relayed(kind, body)
