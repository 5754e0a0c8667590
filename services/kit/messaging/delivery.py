"""What every consumer does with a message: decoded, handled, tried again, or sent to its dead-letter topic.

The partition advances only after the message was handled or its dead letter is with the broker.
"""

from collections.abc import Awaitable, Callable, Sequence

from services.contracts.errors import MillraceError
from services.contracts.events import Event
from services.kit.core.clock import Clock
from services.kit.messaging.dead_letters import DeadLetterQueue
from services.kit.messaging.envelope import Envelope, Message, decode
from services.kit.messaging.ports import Sender
from services.kit.messaging.retry import RetryPolicy


class Delivery:
    """The retry policy and the dead letters of a service."""

    def __init__(self, dead_letters: Sender, clock: Clock, *, service: str = "") -> None:
        self._dead_letters = DeadLetterQueue(dead_letters, clock, service=service)
        self._retry = RetryPolicy(clock)
        self._clock = clock

    async def decode(self, message: Message) -> Envelope[Event] | None:
        """None for a message that is no event: its dead letter is sent. Raises as `attempt` does."""
        try:
            return decode(message, self._clock.now())
        except MillraceError as error:
            await self._dead_letters.send_to_dlq(message, error, tries=0)
            return None

    async def attempt(self, messages: Sequence[Message], handle: Callable[[], Awaitable[object]]) -> None:
        """Returns when the messages, of one topic, may be forgotten; Unavailable if no dead letter can be sent."""
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
