"""Events of one topic handled concurrently, in no order, none forgotten: for requests that somebody waits for."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from services.contracts.errors import MillraceError
from services.contracts.events import Event
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.core.metrics import NO_TENANT
from services.kit.messaging.consumer_loop import MAX_RECORDS, POLL_MS, RETRY_SECONDS, ConsumerLoop, group_consumer
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Envelope, Message
from services.kit.messaging.lag import set_lag
from services.kit.messaging.records import to_message

COMMIT_SECONDS: Final = 0.2
SHUTDOWN_SECONDS: Final = 5.0
"""How long events in progress may take to end when their partition goes to another consumer, or this one stops."""
WINDOW: Final = 8
"""So many times the limit may lie between the first event not handled and the last one fetched."""
NO_PARTITION: Final = TopicPartition("", 0)
"""Polling it fetches no record, and tells the group that the consumer lives."""

Handle = Callable[[Envelope[Any]], Awaitable[None]]


@dataclass
class PartitionProgress:
    """How far one partition has been fetched, and how far it has been handled without a gap."""

    fetched: deque[int] = field(default_factory=deque)
    """Offsets that were fetched and cannot be committed yet, in order."""
    handled: set[int] = field(default_factory=set)
    position: int | None = None
    """What to commit: everything before it has been handled."""
    committed: int | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def mark_handled(self, offset: int) -> None:
        self.handled.add(offset)
        while self.fetched and self.fetched[0] in self.handled:
            first = self.fetched.popleft()
            self.handled.remove(first)
            self.position = first + 1


class ConcurrentConsumer(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Hands the events of one topic to `handle`, up to `limit` at once; a part of a service.

    An offset is committed once its event and all before it in the partition have been handled, so a crash delivers
    again what was in progress and no less: the handler must bear an event twice. What fails is retried or dead-lettered
    by the `Delivery`. At its limits the consumer fetches nothing more, and stays in its group. Partitions that pass to
    another consumer are given up after events in progress have ended, or after five seconds.
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
        self._delivery = delivery
        self._clock = clock
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._progress: dict[TopicPartition, PartitionProgress] = {}
        self._in_progress = 0
        self._bytes = 0
        self._capacity_freed = asyncio.Event()
        self._consumer: AIOKafkaConsumer | None = None
        self._loop = ConsumerLoop(
            event.topic,
            lambda: group_consumer(event, bootstrap_servers=bootstrap_servers, service=service, listener=self),
            clock,
        )

    async def run(self) -> None:
        await self._loop.run(self)

    async def consume(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        commit_at = self._clock.monotonic() + COMMIT_SECONDS
        while True:
            if capacity := self._capacity():
                batches = await consumer.getmany(timeout_ms=self._poll_ms(), max_records=min(capacity, MAX_RECORDS))
                for partition, records in batches.items():
                    for record in records:
                        self._begin(partition, record.offset, to_message(record))
            else:
                await self._wait_for_capacity()
                await consumer.getmany(NO_PARTITION)
            if self._clock.monotonic() >= commit_at:
                await self._commit(list(self._progress))
                self._observe(consumer)
                commit_at = self._clock.monotonic() + COMMIT_SECONDS

    async def release(self) -> None:
        await self._finish(list(self._progress))

    def _poll_ms(self) -> int:
        """What was handled is committed soon, also when nothing new comes."""
        return int(COMMIT_SECONDS * 1000) if self._in_progress else POLL_MS

    def _capacity(self) -> int:
        """How many records may be fetched now."""
        if self._bytes >= self._limit_bytes:
            return 0
        window = self._limit * WINDOW - sum(len(progress.fetched) for progress in self._progress.values())
        return max(0, min(self._limit - self._in_progress, window))

    async def _wait_for_capacity(self) -> None:
        """Until something has ended, or for half a second."""
        self._capacity_freed.clear()
        try:
            async with asyncio.timeout(POLL_MS / 1000):
                await self._capacity_freed.wait()
        except TimeoutError:
            return

    # --- one record

    def _begin(self, partition: TopicPartition, offset: int, message: Message) -> None:
        progress = self._progress.setdefault(partition, PartitionProgress())
        progress.fetched.append(offset)
        size = len(message.value or b"")
        self._in_progress += 1
        self._bytes += size
        task = asyncio.create_task(self._one(progress, offset, message))
        progress.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            progress.tasks.discard(task)
            self._in_progress -= 1
            self._bytes -= size
            self._capacity_freed.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("an event of %s ended with an error", self._event.topic, exc_info=error)

        task.add_done_callback(ended)

    async def _one(self, progress: PartitionProgress, offset: int, message: Message) -> None:
        began = self._clock.monotonic()
        while True:
            try:
                tenant = await self._deliver(message)
                break
            except MillraceError as error:  # its dead letter cannot be sent
                logger.warning("%s waits: %s", self._event.topic, error)
                await self._clock.sleep(RETRY_SECONDS)
        telemetry.EVENT_SECONDS.record(self._clock.monotonic() - began, tenant=tenant, topic=self._event.topic)
        telemetry.EVENTS_HANDLED.add(1, tenant=tenant, topic=self._event.topic)
        progress.mark_handled(offset)

    async def _deliver(self, message: Message) -> str:
        """The tenant of the event that was handled; none of a message that is no event."""
        envelope = await self._delivery.decode(message)
        if envelope is None:
            return NO_TENANT
        await self._delivery.attempt([message], lambda: self._handle(envelope))
        return envelope.tenant

    # --- offsets, and partitions that come and go

    async def _commit(self, partitions: list[TopicPartition]) -> None:
        owned = {partition: self._progress[partition] for partition in partitions if partition in self._progress}
        offsets = {
            partition: progress.position
            for partition, progress in owned.items()
            if progress.position is not None and progress.position != progress.committed
        }
        if not offsets or self._consumer is None:
            return
        try:
            await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:  # another consumer owns them now
            logger.warning("offsets of %s were not committed: %s", self._event.topic, error)
            return
        for partition, offset in offsets.items():
            owned[partition].committed = offset

    def _observe(self, consumer: AIOKafkaConsumer) -> None:
        """The lag is what was not handled yet, whether it was fetched or not."""
        for partition, progress in self._progress.items():
            first = progress.fetched[0] if progress.fetched else progress.position
            if partition in consumer.assignment() and (end := consumer.highwater(partition)) is not None:
                set_lag(partition, end - first if first is not None else 0)

    async def _finish(self, partitions: list[TopicPartition]) -> None:
        """Lets events in progress end, commits how far that went, and gives the rest up: it is delivered again."""
        owned = [self._progress[partition] for partition in partitions if partition in self._progress]
        tasks = [task for progress in owned for task in progress.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=SHUTDOWN_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await self._commit(partitions)
        except (KafkaError, TimeoutError, OSError) as error:
            logger.warning("offsets of %s were not committed: %s", self._event.topic, error)
        for partition in partitions:
            self._progress.pop(partition, None)

    async def on_partitions_revoked(self, revoked: "set[TopicPartition]") -> None:
        await self._finish(list(revoked))

    async def on_partitions_assigned(self, assigned: "set[TopicPartition]") -> None:
        """Nothing to prepare: a partition's progress begins with its first record."""
