"""One topic, many of its events handled at once, none of them forgotten: for requests that somebody waits for."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from services.contracts.errors import Refusal
from services.contracts.events import Event
from services.kit import telemetry
from services.kit.bus.delivery import Delivery
from services.kit.bus.records import RETRY_SECONDS, to_message
from services.kit.bus.stream import MAX_RECORDS, POLL_MS, stop_consumer
from services.kit.clock import Clock
from services.kit.envelope import Envelope, Message, decode
from services.kit.log import logger

COMMIT_SECONDS: Final = 0.2
FAREWELL_SECONDS: Final = 5.0
"""How long what is under way may take to end when its partition goes to another reader, or this one stops."""
WINDOW: Final = 8
"""So many times the bound of what is under way may lie between the first event not handled and the last one taken."""
NOWHERE: Final = TopicPartition("", 0)
"""Asking for it takes no record, and tells the group that the reader lives."""

Handle = Callable[[Envelope[Any]], Awaitable[None]]


@dataclass
class _Place:
    """How far one partition has been taken, and how far it has been handled without a gap."""

    taken: deque[int] = field(default_factory=deque)
    """Offsets that were taken and cannot be committed yet, in order."""
    handled: set[int] = field(default_factory=set)
    position: int | None = None
    """What to commit: everything before it has been handled."""
    committed: int | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def done(self, offset: int) -> None:
        self.handled.add(offset)
        while self.taken and self.taken[0] in self.handled:
            first = self.taken.popleft()
            self.handled.remove(first)
            self.position = first + 1


class FlowReader(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Hands the events of one topic to `handle`, up to `limit` at once; a part of a service.

    An offset is committed once its event and all before it in the partition have been handled, so a crash delivers
    again what was under way and no less: the handler must bear an event twice. Events are handled in no order. What
    fails is tried again or buried by the policy of the `Delivery`. At its bounds the reader takes nothing more, and
    stays in its group. Partitions that pass to another reader are left after what is under way has ended, or after
    five seconds.
    """

    def __init__(
        self,
        event: type[Event],
        handle: Handle,
        *,
        bootstrap_servers: str,
        service: str,
        delivery: Delivery,
        clock: Clock,
        limit: int,
        limit_bytes: int,
    ) -> None:
        self._event = event
        self._handle = handle
        self._servers = bootstrap_servers
        self._service = service
        self._delivery = delivery
        self._clock = clock
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._places: dict[TopicPartition, _Place] = {}
        self._under_way = 0
        self._bytes = 0
        self._freed = asyncio.Event()
        self._consumer: AIOKafkaConsumer | None = None

    async def run(self) -> None:
        while True:
            consumer = self._consumer = AIOKafkaConsumer(
                bootstrap_servers=self._servers,
                client_id=f"millrace-{self._service}-{self._event.topic}",
                group_id=f"millrace.{self._service}.{self._event.topic}",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=10_000,
            )
            consumer.subscribe([self._event.topic], listener=self)
            try:
                await consumer.start()
                await self._flow(consumer)
            except (KafkaError, OSError) as error:
                logger.warning("reading %s begins again: %s", self._event.topic, error)
            finally:
                await self._leave(list(self._places))
                await stop_consumer(consumer)
            await self._clock.sleep(RETRY_SECONDS)

    async def _flow(self, consumer: AIOKafkaConsumer) -> None:
        commit_at = self._clock.monotonic() + COMMIT_SECONDS
        while True:
            if room := self._room():
                taken = await consumer.getmany(timeout_ms=self._patience_ms(), max_records=min(room, MAX_RECORDS))
                for partition, records in taken.items():
                    for record in records:
                        self._begin(partition, record.offset, to_message(record))
            else:
                await self._wait_for_room()
                await consumer.getmany(NOWHERE)
            if self._clock.monotonic() >= commit_at:
                await self._commit(list(self._places))
                self._observe(consumer)
                commit_at = self._clock.monotonic() + COMMIT_SECONDS

    def _patience_ms(self) -> int:
        """What was handled is committed soon, also when nothing new comes."""
        return int(COMMIT_SECONDS * 1000) if self._under_way else POLL_MS

    def _room(self) -> int:
        """How many records may be taken now."""
        if self._bytes >= self._limit_bytes:
            return 0
        window = self._limit * WINDOW - sum(len(place.taken) for place in self._places.values())
        return max(0, min(self._limit - self._under_way, window))

    async def _wait_for_room(self) -> None:
        """Until something has ended, or for half a second."""
        self._freed.clear()
        try:
            async with asyncio.timeout(POLL_MS / 1000):
                await self._freed.wait()
        except TimeoutError:
            return

    # --- one record

    def _begin(self, partition: TopicPartition, offset: int, message: Message) -> None:
        place = self._places.setdefault(partition, _Place())
        place.taken.append(offset)
        size = len(message.value or b"")
        self._under_way += 1
        self._bytes += size
        task = asyncio.create_task(self._one(place, offset, message))
        place.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            place.tasks.discard(task)
            self._under_way -= 1
            self._bytes -= size
            self._freed.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("an event of %s ended with an error", self._event.topic, exc_info=error)

        task.add_done_callback(ended)

    async def _one(self, place: _Place, offset: int, message: Message) -> None:
        with telemetry.EVENT_SECONDS.labels(self._event.topic).time():
            while True:
                try:
                    await self._deliver(message)
                    break
                except Refusal as refusal:  # its dead letter cannot be sent
                    logger.warning("%s waits: %s", self._event.topic, refusal)
                    await self._clock.sleep(RETRY_SECONDS)
        telemetry.EVENTS_HANDLED.labels(self._event.topic).inc()
        place.done(offset)

    async def _deliver(self, message: Message) -> None:
        try:
            envelope = decode(message, self._clock.now())
        except Refusal as refusal:
            await self._delivery.bury(message, refusal, tries=0)
            return
        await self._delivery.attempt(message, lambda: self._handle(envelope))

    # --- offsets, and partitions that come and go

    async def _commit(self, partitions: list[TopicPartition]) -> None:
        places = {partition: self._places[partition] for partition in partitions if partition in self._places}
        offsets = {
            partition: place.position
            for partition, place in places.items()
            if place.position is not None and place.position != place.committed
        }
        if not offsets or self._consumer is None:
            return
        try:
            await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:  # they are another reader's now, who answers them again
            logger.warning("offsets of %s were not committed: %s", self._event.topic, error)
            return
        for partition, offset in offsets.items():
            places[partition].committed = offset

    def _observe(self, consumer: AIOKafkaConsumer) -> None:
        """The lag is what was not handled yet, whether it was taken or not."""
        for partition, place in self._places.items():
            first = place.taken[0] if place.taken else place.position
            if partition in consumer.assignment() and (end := consumer.highwater(partition)) is not None:
                lag = max(0, end - first) if first is not None else 0
                telemetry.CONSUMER_LAG.labels(partition.topic, str(partition.partition)).set(lag)

    async def _leave(self, partitions: list[TopicPartition]) -> None:
        """Lets what is under way end, keeps how far that went, and gives the rest up: it is delivered again."""
        places = [self._places[partition] for partition in partitions if partition in self._places]
        tasks = [task for place in places for task in place.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=FAREWELL_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._commit(partitions)
        except (KafkaError, TimeoutError, OSError) as error:
            logger.warning("offsets of %s were not committed: %s", self._event.topic, error)
        for partition in partitions:
            self._places.pop(partition, None)

    async def on_partitions_revoked(self, revoked: "set[TopicPartition]") -> None:
        await self._leave(list(revoked))

    async def on_partitions_assigned(self, assigned: "set[TopicPartition]") -> None:
        """Nothing to prepare: a partition's place begins with its first record."""
