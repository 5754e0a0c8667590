"""The broker of the virtual loop: one process, no Kafka, every delivery in the order of sending."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from aiokafka import ConsumerRecord
from faststream.kafka import TestKafkaBroker

from services.kit.core.clock import Clock
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Message
from services.kit.messaging.event_consumer import Subscribe, build_broker, kafka_subscribers
from services.kit.messaging.ports import Group
from services.kit.messaging.producer import check_size


class InMemoryBroker:
    """A sender whose messages wait until `deliver_all` hands them to every group."""

    def __init__(self) -> None:
        self._pending: deque[Message] = deque()
        self._groups: list[Group] = []
        self.sent: list[Message] = []

    def join(self, groups: Sequence[Group]) -> None:
        self._groups.extend(groups)

    async def send(self, messages: list[Message]) -> None:
        """Refuses what the producer refuses. Raises TooLarge."""
        for message in messages:
            check_size(message)
        self.append(messages)

    def append(self, messages: list[Message]) -> None:
        """As a producer that is none of the services' sends."""
        self.sent.extend(messages)
        self._pending.extend(messages)

    async def deliver_all(self) -> int:
        """Delivers until nothing waits, what handlers send meanwhile included; how many messages that was."""
        count = 0
        while self._pending:
            message = self._pending.popleft()
            count += 1
            for group in self._groups:
                if message.topic in group.topics:
                    await group.deliver(message)
        return count


class InMemorySubscribers:
    """A service's FastStream subscribers, behind the middlewares that they have on Kafka; open it before use."""

    def __init__(self, subscribe: Subscribe, delivery: Delivery, clock: Clock) -> None:
        broker = build_broker(subscribe, delivery, clock, bootstrap_servers="in-memory:0", service="in-memory")
        self._subscribers = {
            topic: subscriber for subscriber in kafka_subscribers(broker) for topic in subscriber.topic_names
        }
        self._running = TestKafkaBroker(broker, connect_only=False)

    @property
    def topics(self) -> Sequence[str]:
        return list(self._subscribers)

    async def open(self) -> None:
        await self._running.__aenter__()

    async def close(self) -> None:
        await self._running.__aexit__()

    async def deliver(self, message: Message) -> None:
        """Raises what FastStream would answer with a nack."""
        await self._subscribers[message.topic].process_message(_record(message))


def _record(message: Message) -> "ConsumerRecord[Any, Any]":
    return ConsumerRecord(
        topic=message.topic,
        partition=0,
        offset=0,
        timestamp=0,
        timestamp_type=0,
        key=message.key,
        value=message.value,
        checksum=None,
        serialized_key_size=len(message.key or b""),
        serialized_value_size=len(message.value or b""),
        headers=tuple((name, value.encode()) for name, value in message.headers),
    )
