"""Dead letters: what could not be handled, on `<topic>.dlq`, with the reason in `dlq-*` headers."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.contracts.errors import MillraceError, TooLarge
from services.contracts.topics import DLQ_SUFFIX
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.core.metrics import NO_TENANT
from services.kit.messaging.envelope import MAX_EVENT_BYTES, MalformedEvent, Message, tenant_of, tenant_or_default
from services.kit.messaging.ports import Sender

MAX_TRUNCATED_KEY_BYTES: Final = 1_000
MAX_REASON_CHARACTERS: Final = 500


@dataclass(frozen=True)
class DeadLetter:
    """The original message and why it was given up."""

    message: Message
    error: Exception
    tries: int
    time: datetime
    service: str = ""

    @property
    def code(self) -> str:
        return self.error.code if isinstance(self.error, MillraceError) else type(self.error).__name__

    @property
    def tenant(self) -> str:
        """Whose the message says it is; empty where it names no tenant that there could be."""
        try:
            return tenant_of(self.message)
        except MalformedEvent:
            return NO_TENANT

    def encode(self) -> Message:
        """The original bytes, key and headers, and the reason beside them."""
        original = self.message
        headers_of_event = {name: value for name, value in original.headers if not name.startswith("dlq-")}
        headers = tuple({**headers_of_event, **self._reason()}.items())
        return Message(original.topic + DLQ_SUFFIX, original.key, original.value, headers)

    def encode_truncated(self) -> Message:
        """Without the original headers and the end of its value; `dlq-cut` is the size that the value had."""
        original = self.message
        key, value = original.key or b"", original.value or b""
        headers = tuple({**self._reason(), "dlq-cut": str(len(value))}.items())
        return replace(
            self.encode(),
            key=key[:MAX_TRUNCATED_KEY_BYTES],
            value=value[: MAX_EVENT_BYTES // 2],
            headers=headers,
        )

    def _reason(self) -> dict[str, str]:
        refused = isinstance(self.error, MillraceError)
        reason = str(self.error) if refused else "an internal error; the service's log has it"
        headers = {
            "dlq-topic": self.message.topic,
            "dlq-tenant": tenant_or_default(self.message),
            "dlq-code": self.code,
            "dlq-tries": str(self.tries),
            "dlq-reason": reason[:MAX_REASON_CHARACTERS],
            "dlq-at": self.time.isoformat(),
        }
        return headers | ({"dlq-by": self.service} if self.service else {})


class DeadLetterQueue:
    """Sends dead letters for one service."""

    def __init__(self, sender: Sender, clock: Clock, *, service: str = "") -> None:
        self._sender = sender
        self._clock = clock
        self._service = service

    async def send_to_dlq(self, message: Message, error: Exception, *, tries: int) -> None:
        """Returns once the broker has the dead letter; raises Unavailable. What no broker would take is truncated."""
        dead_letter = DeadLetter(message, error, tries, self._clock.now(), self._service)
        logger.error(
            "dead letter on %s: %s: %s", message.topic, dead_letter.code, error, exc_info=error if tries else None
        )
        try:
            await self._sender.send([dead_letter.encode()])
        except TooLarge:
            await self._sender.send([dead_letter.encode_truncated()])
        telemetry.DEAD_LETTERS.add(1, tenant=dead_letter.tenant, topic=message.topic, code=dead_letter.code)
