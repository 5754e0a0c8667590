"""Dead letters for tests: buried by the services' own `Delivery`, and seen as the command line sees records."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from faststream.kafka import KafkaBroker

from services.cli.letters import DeadLetter, known_letters
from services.cli.sending import Sent
from services.cli.watching import ReceivedEvent
from services.contracts.errors import Invalid
from services.contracts.events import DatasetReady
from services.kit.core.clock import VirtualClock
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Envelope, Message, encode
from services.kit.messaging.in_memory import InMemorySubscribers

DATASET = DatasetReady(dataset="docs", uri="file:///data/docs.jsonl", model="topics")
PLAIN = Message("dataset.ready", b"docs", DATASET.model_dump_json().encode())


class NotNow(Invalid):
    """It is refused today."""


@dataclass
class Bus:
    """A broker in memory: what was sent, as records with a place; `Sender` of both kinds."""

    records: list[ReceivedEvent] = field(default_factory=list)
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __call__(self, messages: Any) -> list[Sent]:
        return [self._append(message) for message in messages]

    async def send(self, messages: list[Message]) -> None:
        self(messages)

    def on_topic(self, topic: str) -> list[ReceivedEvent]:
        return [seen for seen in self.records if seen.topic == topic]

    def letters(self) -> list[DeadLetter]:
        return known_letters(seen for seen in self.records if seen.topic.endswith(".dlq"))

    def messages(self, topic: str) -> list[Message]:
        return [message_of(seen) for seen in self.on_topic(topic)]

    def _append(self, message: Message) -> Sent:
        offset, now = len(self.on_topic(message.topic)), self.clock.now()
        try:
            body = json.loads(message.value or b"")
        except ValueError:
            body = {}
        self.records.append(
            ReceivedEvent(
                topic=message.topic,
                key=(message.key or b"").decode("utf-8", "replace"),
                time=now,
                source="test",
                headers=dict(message.headers),
                body=body if isinstance(body, dict) else {},
                offset=offset,
                partition=0,
                value=message.value or b"",
                record_key=message.key,
                stamp=now,
            )
        )
        return Sent(message.topic, 0, offset)


def message_of(seen: ReceivedEvent) -> Message:
    return Message(seen.topic, seen.record_key, seen.value, tuple(seen.headers.items()))


@dataclass
class Service:
    """A consumer with an inbox that refuses until it is mended; its dead letters go to the bus."""

    bus: Bus
    name: str = "trainer"
    mended: bool = False
    inbox: set[str] = field(default_factory=set)
    effects: list[str] = field(default_factory=list)

    async def deliver(self, message: Message) -> None:
        delivery = Delivery(self.bus, self.bus.clock, service=self.name)
        subscribers = InMemorySubscribers(self._subscribe, delivery, self.bus.clock)
        await subscribers.open()
        await subscribers.deliver(message)
        await subscribers.close()

    def _subscribe(self, broker: KafkaBroker) -> None:
        broker.subscriber("dataset.ready", group_id=self.name, auto_offset_reset="earliest")(self._handle)

    async def _handle(self, envelope: Envelope[DatasetReady]) -> None:
        if envelope.id in self.inbox:
            return
        if not self.mended:
            raise NotNow
        self.inbox.add(envelope.id)
        self.effects.append(envelope.id)


def told(event: Any, name: str = "evt-1", **more: Any) -> Message:
    return encode(Envelope(id=name, event=event, source="test", time=datetime(2026, 1, 1, tzinfo=UTC), **more))


def days(number: float) -> timedelta:
    return timedelta(days=number)
