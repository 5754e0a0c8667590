"""The way of one message through a service: decoded, handled, tried again, or sent to its dead-letter topic.

The partition advances only after the message was handled or its dead letter is with the broker.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from opentelemetry.trace import SpanKind

from services.contracts.errors import Refusal
from services.contracts.events import Event
from services.kit import telemetry
from services.kit.clock import Clock
from services.kit.envelope import Envelope, Message, decode
from services.kit.messaging.dead_letters import DeadLetterQueue
from services.kit.messaging.ports import Sender
from services.kit.messaging.retry import RetryPolicy

E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class Subscription:
    """A handler for the events of one type."""

    event: type[Event]
    handle: Callable[[Envelope[Any]], Awaitable[None]]

    @property
    def topic(self) -> str:
        return self.event.topic


def on(event: type[E], handle: Callable[[Envelope[E]], Awaitable[None]]) -> Subscription:
    return Subscription(event, handle)


class Delivery:
    """Decodes, handles, retries and dead-letters; one for all the subscriptions of a service."""

    def __init__(
        self, subscriptions: Sequence[Subscription], dead_letters: Sender, clock: Clock, *, service: str = ""
    ) -> None:
        self._by_topic = {subscription.topic: subscription for subscription in subscriptions}
        self._dead_letters = DeadLetterQueue(dead_letters, clock, service=service)
        self._retry = RetryPolicy(clock)
        self._clock = clock

    @property
    def topics(self) -> list[str]:
        return sorted(self._by_topic)

    async def deliver(self, message: Message) -> None:
        """Returns when the message may be forgotten. Raises Unavailable only if its dead letter cannot be sent."""
        envelope = await self.decode(message)
        if envelope is None:
            return
        with telemetry.span(
            f"process {message.topic}",
            kind=SpanKind.CONSUMER,
            parent=envelope.trace,
            attributes=process_attributes(message.topic, envelope.id),
        ):
            with telemetry.EVENT_SECONDS.labels(message.topic).time():
                await self.attempt([message], lambda: self._by_topic[message.topic].handle(envelope))
            telemetry.EVENTS_HANDLED.labels(message.topic).inc()

    async def decode(self, message: Message) -> Envelope[Event] | None:
        """None for a message that is no event: its dead letter is sent. Raises as `deliver` does."""
        try:
            return decode(message, self._clock.now())
        except Refusal as refusal:
            await self._dead_letters.send_to_dlq(message, refusal, tries=0)
            return None

    async def attempt(self, messages: Sequence[Message], handle: Callable[[], Awaitable[None]]) -> None:
        """Handles decoded messages of one topic together, by the retry policy. Raises as `deliver` does."""
        if failure := await self._retry.run(messages[0].topic, handle):
            for message in messages:
                await self._dead_letters.send_to_dlq(message, failure.error, tries=failure.tries)


def process_attributes(topic: str, event_id: str) -> dict[str, str]:
    """Messaging attributes of the OpenTelemetry semantic conventions 1.41."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.message.id": event_id,
    }
