"""Compacted topics from their beginning, without a group: every replica of a service sees every key."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer

from services.contracts.errors import MillraceError
from services.contracts.events import Event
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.messaging.consumer_loop import POLL_MS, ConsumerLoop
from services.kit.messaging.envelope import Envelope, Message, decode
from services.kit.messaging.records import to_message

Handler = Callable[[Envelope[Any]], Awaitable[None]]


class CompactedTopicReader:
    """Follows compacted topics; `caught_up` is set once everything that was there at the start has been handled.

    A message that cannot be understood is skipped with a warning: the next one for its key repairs it.
    """

    def __init__(
        self, handlers: dict[type[Event], Handler], *, bootstrap_servers: str, client: str, clock: Clock
    ) -> None:
        self._by_topic = {event.topic: handle for event, handle in handlers.items()}
        self._servers = bootstrap_servers
        self._client = client
        self._clock = clock
        self._loop = ConsumerLoop(", ".join(self._by_topic), self._build, clock)
        self.caught_up = asyncio.Event()

    @property
    def topics(self) -> list[str]:
        return list(self._by_topic)

    async def run(self) -> None:
        await self._loop.run(self)

    def _build(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            *self._by_topic,
            bootstrap_servers=self._servers,
            client_id=self._client,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # a broker that lost its topics begins again, and so do we
        )

    async def consume(self, consumer: AIOKafkaConsumer) -> None:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while True:
            if not self.caught_up.is_set():
                positions = [(await consumer.position(partition)) >= end for partition, end in ends.items()]
                if all(positions):
                    self.caught_up.set()
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    await self.on_message(to_message(record))

    async def release(self) -> None:
        """Nothing to keep: the next consumer begins at the beginning."""

    async def on_message(self, message: Message) -> None:
        """One message through decoding and handling."""
        if message.value is None:
            return  # a tombstone: the key is gone
        try:
            envelope = decode(message, self._clock.now())
            with telemetry.attached(envelope.trace):
                await self._by_topic[message.topic](envelope)
        except MillraceError as error:
            logger.warning("a message on %s is skipped: %s", message.topic, error)
