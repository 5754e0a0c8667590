"""Raw aiokafka where volume or semantics ask for it: batches of telemetry, and the latest of compacted topics."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.contracts.errors import Refusal
from services.contracts.events import Event
from services.kit import telemetry
from services.kit.bus.delivery import AWAY_PAUSE_SECONDS, PAUSES_SECONDS, TRIES, Delivery
from services.kit.bus.lag import observe_lag
from services.kit.bus.records import RETRY_SECONDS, STOP_SECONDS, to_message
from services.kit.clock import Clock
from services.kit.envelope import Envelope, Message, decode
from services.kit.log import logger

POLL_MS: Final = 500
MAX_RECORDS: Final = 200

HandleMany = Callable[[Sequence[Envelope[Any]]], Awaitable[None]]
Handle = Callable[[Envelope[Any]], Awaitable[None]]


class BatchReader:
    """Hands the events of one topic to `handle` in batches, commits after each; a part of a service.

    The handler must bear a batch twice. Malformed messages go to the dead letters, and so does a batch that
    fails five times. While a needed part is away the batch waits.
    """

    def __init__(
        self,
        event: type[Event],
        handle: HandleMany,
        *,
        bootstrap_servers: str,
        service: str,
        delivery: Delivery,
        clock: Clock,
    ) -> None:
        self._event = event
        self._handle = handle
        self._servers = bootstrap_servers
        self._service = service
        self._delivery = delivery
        self._clock = clock

    async def run(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                self._event.topic,
                bootstrap_servers=self._servers,
                client_id=f"millrace-{self._service}-{self._event.topic}",
                group_id=f"millrace.{self._service}.{self._event.topic}",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=10_000,
            )
            try:
                await consumer.start()
                while True:
                    await self._take(consumer)
            except (KafkaError, OSError, Refusal) as error:
                logger.warning("reading %s begins again: %s", self._event.topic, error)
            finally:
                await stop_consumer(consumer)
            await self._clock.sleep(RETRY_SECONDS)

    async def _take(self, consumer: AIOKafkaConsumer) -> None:
        batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        messages = [to_message(record) for records in batches.values() for record in records]
        if not messages:
            return
        await self.deliver(messages)
        await consumer.commit()
        observe_lag(consumer)

    async def deliver(self, messages: Sequence[Message]) -> None:
        """One batch through decoding, handling and, where it fails, the dead letters."""
        envelopes: list[Envelope[Event]] = []
        understood: list[Message] = []
        for message in messages:
            try:
                envelopes.append(decode(message, self._clock.now()))
                understood.append(message)
            except Refusal as refusal:
                await self._delivery.bury(message, refusal, tries=0)
        if envelopes:
            with telemetry.EVENT_SECONDS.labels(self._event.topic).time():
                await self._attempt(envelopes, understood)
            telemetry.EVENTS_HANDLED.labels(self._event.topic).inc(len(envelopes))

    async def _attempt(self, envelopes: Sequence[Envelope[Event]], messages: Sequence[Message]) -> None:
        failures = 0
        while True:
            try:
                await self._handle(envelopes)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends as a dead letter
                if isinstance(error, Refusal) and error.retryable:
                    await self._clock.sleep(AWAY_PAUSE_SECONDS)
                    continue
                failures += 1
                if failures == TRIES or isinstance(error, Refusal):
                    for message in messages:
                        await self._delivery.bury(message, error, tries=failures)
                    return
                logger.warning("a batch of %s is tried again", self._event.topic, exc_info=error)
                await self._clock.sleep(PAUSES_SECONDS[failures - 1])


class LatestReader:
    """Follows compacted topics from their beginning, without a group: every replica sees every key.

    `caught_up` is set once everything that was there at the start has been handled. A message that
    cannot be understood is passed over with a warning: the next one for its key repairs it.
    """

    def __init__(
        self, handlers: dict[type[Event], Handle], *, bootstrap_servers: str, client: str, clock: Clock
    ) -> None:
        self._by_topic = {event.topic: handle for event, handle in handlers.items()}
        self._servers = bootstrap_servers
        self._client = client
        self._clock = clock
        self.caught_up = asyncio.Event()

    async def run(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._servers,
                client_id=self._client,
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # a broker that lost its topics begins again, and so do we
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except (KafkaError, OSError) as error:
                logger.warning("reading %s begins again: %s", ", ".join(self._by_topic), error)
            finally:
                await stop_consumer(consumer)
            await self._clock.sleep(RETRY_SECONDS)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        partitions = await self._partitions(consumer)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while True:
            if not self.caught_up.is_set():
                positions = [(await consumer.position(partition)) >= ends[partition] for partition in partitions]
                if all(positions):
                    self.caught_up.set()
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    await self._handle(to_message(record))

    async def _partitions(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        """Waits until every topic is known: on Kafka it may be created a moment later."""
        while True:
            found: list[TopicPartition] = []
            known = 0
            for topic in self._by_topic:
                numbers = consumer.partitions_for_topic(topic)
                if not numbers:
                    await consumer._client.add_topic(topic)
                    numbers = consumer.partitions_for_topic(topic)
                known += bool(numbers)
                found += [TopicPartition(topic, number) for number in sorted(numbers or ())]
            if known == len(self._by_topic):
                return found
            await self._clock.sleep(0.2)

    async def _handle(self, message: Message) -> None:
        if message.value is None:
            return  # a tombstone: the key is gone
        try:
            envelope = decode(message, self._clock.now())
            with telemetry.attached(envelope.trace):
                await self._by_topic[message.topic](envelope)
        except Refusal as refusal:
            logger.warning("a message on %s is passed over: %s", message.topic, refusal)


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leaves the group; one that is still on its way into it would wait for that, so its connections are cut."""
    with suppress(KafkaError, TimeoutError, OSError):
        async with asyncio.timeout(STOP_SECONDS):
            await consumer.stop()
            return
    await consumer._client.close()
