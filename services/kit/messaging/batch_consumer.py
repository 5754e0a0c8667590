"""Events of one topic in batches, one commit a batch: for telemetry, where volume counts."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer

from services.contracts.events import Event
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.messaging.consumer_loop import MAX_RECORDS, POLL_MS, ConsumerLoop, group_consumer
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Envelope, Message
from services.kit.messaging.lag import observe_lag
from services.kit.messaging.records import to_message

BatchHandler = Callable[[Sequence[Envelope[Any]]], Awaitable[None]]


class BatchConsumer:
    """Hands the events of one topic to `handle` in batches, commits after each; a part of a service.

    The handler must bear a batch twice. Malformed messages go to the dead letters, and so does a batch that
    fails five times. While a needed part is away the batch waits.
    """

    def __init__(
        self,
        event: type[Event],
        handle: BatchHandler,
        *,
        bootstrap_servers: str,
        service: str,
        delivery: Delivery,
        clock: Clock,
    ) -> None:
        self._event = event
        self._handle = handle
        self._delivery = delivery
        self._clock = clock
        self._loop = ConsumerLoop(
            event.topic, lambda: group_consumer(event, bootstrap_servers=bootstrap_servers, service=service), clock
        )

    async def run(self) -> None:
        await self._loop.run(self)

    async def consume(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
            messages = [to_message(record) for records in batches.values() for record in records]
            if messages:
                await self.deliver(messages)
                await consumer.commit()
            await observe_lag(consumer)

    async def release(self) -> None:
        """Nothing is in progress between two batches; one that was broken off comes again."""

    async def deliver(self, messages: Sequence[Message]) -> None:
        """One batch through decoding, handling and, where it fails, the dead letters."""
        pairs = [(message, await self._delivery.decode(message)) for message in messages]
        events = [(message, envelope) for message, envelope in pairs if envelope is not None]
        if events:
            envelopes = [envelope for _, envelope in events]
            began = self._clock.monotonic()
            await self._delivery.attempt([message for message, _ in events], lambda: self._handle(envelopes))
            seconds = self._clock.monotonic() - began
            for tenant, count in Counter(envelope.tenant for envelope in envelopes).items():
                telemetry.EVENT_SECONDS.record(seconds, tenant=tenant, topic=self._event.topic)
                telemetry.EVENTS_HANDLED.add(count, tenant=tenant, topic=self._event.topic)
