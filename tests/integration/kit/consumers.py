"""A service with one handler, on a broker or in memory, for the tests of messaging."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faststream.kafka import KafkaBroker

from services.contracts.events import Event, FeedbackReceived, TrainingFailed
from services.kit.core.clock import SystemClock
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Envelope, Message, encode
from services.kit.messaging.event_consumer import EventConsumer
from services.kit.messaging.in_memory import InMemoryBroker, InMemorySubscribers
from services.kit.messaging.producer import EventProducer
from services.kit.messaging.records import to_message
from tests.integration.kit.services import NOON, feedback

LIMIT = 60.0


@dataclass
class MessagingUnderTest:
    """A service on this broker: its writer, and a handler that does as it is told by the request's name."""

    servers: str
    writer: EventProducer
    service: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:8]}")
    taken: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    failures: dict[str, list[Exception]] = field(default_factory=dict)

    async def handle(self, envelope: Envelope[Any]) -> None:
        name = getattr(envelope.event, "request", envelope.id)
        self.calls.append(name)
        if left := self.failures.get(name):
            raise left.pop(0)
        self.taken.append(name)

    async def handle_many(self, envelopes: Sequence[Envelope[Any]]) -> None:
        for envelope in envelopes:
            await self.handle(envelope)

    def subscribe(self, broker: KafkaBroker) -> None:
        @broker.subscriber("feedback.received", group_id=f"{self.service}.1", auto_offset_reset="earliest")
        async def on_feedback_received(envelope: Envelope[FeedbackReceived]) -> None:
            await self.handle(envelope)

        @broker.subscriber("training.failed", group_id=f"{self.service}.2", auto_offset_reset="earliest")
        async def on_training_failed(envelope: Envelope[TrainingFailed]) -> None:
            await self.handle(envelope)

    def delivery(self) -> Delivery:
        return Delivery(self.writer, SystemClock())

    def bus(self) -> "EventConsumer | InMemoryRun":
        return EventConsumer(
            self.subscribe, self.delivery(), SystemClock(), bootstrap_servers=self.servers, service=self.service
        )

    async def send(self, *names: str, **trace: str) -> None:
        await self.writer.send([message(feedback(name), name, **trace) for name in names])

    async def raw(self, *values: tuple[bytes | None, list[tuple[str, bytes | None]]]) -> None:
        """As a producer that is none of ours sends; of one key, so that all are in one partition."""
        producer = AIOKafkaProducer(bootstrap_servers=self.servers, max_request_size=1_040_000)
        await producer.start()
        for value, headers in values:
            await producer.send_and_wait("feedback.received", value, key=b"chapters", headers=headers)
        await producer.stop()

    async def dead(self, count: int) -> list[Message]:
        return await read(self.servers, "feedback.received.dlq", count)


class InMemoryRun:
    """`EventConsumer` over the in-memory broker."""

    def __init__(self, messaging: "InMemoryMessaging") -> None:
        self._broker = messaging.broker
        self._subscribers = InMemorySubscribers(messaging.subscribe, messaging.delivery(), SystemClock())
        self.connected = asyncio.Event()

    async def run(self) -> None:
        await self._subscribers.open()
        self._broker.join([self._subscribers])
        self.connected.set()
        try:
            while True:
                await self._broker.deliver_all()
                await asyncio.sleep(0.01)
        finally:
            await self._subscribers.close()


@dataclass
class InMemoryMessaging(MessagingUnderTest):
    """The same without a broker."""

    broker: InMemoryBroker = field(default_factory=InMemoryBroker)

    def delivery(self) -> Delivery:
        return Delivery(self.broker, SystemClock())

    def bus(self) -> InMemoryRun:
        return InMemoryRun(self)

    async def send(self, *names: str, **trace: str) -> None:
        await self.broker.send([message(feedback(name), name, **trace) for name in names])

    async def raw(self, *values: tuple[bytes | None, list[tuple[str, bytes | None]]]) -> None:
        for value, headers in values:
            record = SimpleNamespace(topic="feedback.received", key=b"chapters", value=value, headers=headers)
            self.broker.append([to_message(record)])

    async def dead(self, count: int) -> list[Message]:
        dead_letters = [sent for sent in self.broker.sent if sent.topic == "feedback.received.dlq"]
        assert len(dead_letters) >= count
        return dead_letters[:count]


def message(event: Event, name: str, **trace: str) -> Message:
    return encode(Envelope(id=f"e-{name}", event=event, source="test", time=NOON, trace=trace))


async def read(servers: str, topic: str, count: int) -> list[Message]:
    """The first `count` messages of a topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(LIMIT):
            return [to_message(await consumer.getone()) for _ in range(count)]
    finally:
        await consumer.stop()
