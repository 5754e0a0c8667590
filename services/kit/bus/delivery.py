"""What happens to a received message: handled, tried again, or given up to its dead-letter topic.

- An error that says a needed part is away (`Unavailable`, `Overloaded`, `TimedOut`) is waited out, however long.
- A refusal of the event itself goes to the dead letters at once: trying again cannot help.
- Anything else is tried five times, then goes to the dead letters.

Either way the partition advances only after the message was handled or its dead letter is with the broker.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from opentelemetry.trace import SpanKind

from services.contracts.errors import Refusal, TooLarge
from services.contracts.events import Event
from services.kit import telemetry
from services.kit.bus.sender import Sender
from services.kit.clock import Clock
from services.kit.envelope import MAX_EVENT_BYTES, Envelope, Message, decode
from services.kit.log import logger

E = TypeVar("E", bound=Event)

TRIES: Final = 5
PAUSES_SECONDS: Final = (0.1, 0.3, 0.9, 2.0)
AWAY_PAUSE_SECONDS: Final = 2.0
DLQ_SUFFIX: Final = ".dlq"
CUT_KEY_BYTES: Final = 1_000


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
    """Applies the policy above; one for all the subscriptions of a service."""

    def __init__(
        self, subscriptions: Sequence[Subscription], dead_letters: Sender, clock: Clock, *, service: str = ""
    ) -> None:
        self._by_topic = {subscription.topic: subscription for subscription in subscriptions}
        self._dead_letters = dead_letters
        self._clock = clock
        self._service = service

    @property
    def topics(self) -> list[str]:
        return sorted(self._by_topic)

    async def deliver(self, message: Message) -> None:
        """Returns when the message may be forgotten. Raises Unavailable only if its dead letter cannot be sent."""
        try:
            envelope = decode(message, self._clock.now())
        except Refusal as refusal:
            await self.bury(message, refusal, tries=0)
            return
        with telemetry.span(
            f"process {message.topic}",
            kind=SpanKind.CONSUMER,
            parent=envelope.trace,
            attributes=process_attributes(message.topic, envelope.id),
        ):
            with telemetry.EVENT_SECONDS.labels(message.topic).time():
                await self.attempt(message, lambda: self._by_topic[message.topic].handle(envelope))
            telemetry.EVENTS_HANDLED.labels(message.topic).inc()

    async def attempt(self, message: Message, handle: Callable[[], Awaitable[None]]) -> None:
        """Handles a message that was understood, by the policy above. Raises as `deliver` does."""
        failures = 0
        while True:
            try:
                await handle()
                return
            except Refusal as refusal:
                if not refusal.retryable:
                    await self.bury(message, refusal, tries=failures + 1)
                    return
                logger.warning("%s waits: %s", message.topic, refusal)
                await self._clock.sleep(AWAY_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends as a dead letter
                failures += 1
                if failures == TRIES:
                    await self.bury(message, error, tries=failures)
                    return
                logger.warning("%s is tried again after %s: %s", message.topic, type(error).__name__, error)
                await self._clock.sleep(PAUSES_SECONDS[failures - 1])

    async def bury(self, message: Message, error: Exception, *, tries: int) -> None:
        """Sends the original bytes, key and headers to the dead-letter topic, with the reason beside them.

        What no broker would take back with the reason added is cut, without its headers; `dlq-cut` is its size.
        """
        code = error.code if isinstance(error, Refusal) else type(error).__name__
        reason = str(error) if isinstance(error, Refusal) else "an internal error; the service's log has it"
        logger.error("dead letter on %s: %s: %s", message.topic, code, error, exc_info=error if tries else None)
        told = {"dlq-topic": message.topic, "dlq-code": code, "dlq-tries": str(tries)}
        told |= {"dlq-reason": reason[:500], "dlq-at": self._clock.now().isoformat()}
        told |= {"dlq-by": self._service} if self._service else {}
        headers = tuple({**dict(message.headers), **told}.items())
        dead = Message(message.topic + DLQ_SUFFIX, message.key, message.value, headers)
        try:
            await self._dead_letters.send([dead])
        except TooLarge:
            await self._dead_letters.send([_cut(dead, told)])
        telemetry.DEAD_LETTERS.labels(message.topic, code).inc()


def _cut(dead: Message, told: dict[str, str]) -> Message:
    key, value = dead.key or b"", dead.value or b""
    headers = tuple({**told, "dlq-cut": str(len(value))}.items())
    return replace(dead, key=key[:CUT_KEY_BYTES], value=value[: MAX_EVENT_BYTES // 2], headers=headers)


def process_attributes(topic: str, event_id: str) -> dict[str, str]:
    """Messaging attributes of the OpenTelemetry semantic conventions 1.41."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.message.id": event_id,
    }
