"""What sending promises."""

from typing import Protocol

from services.kit.messaging.envelope import Message


class Sender(Protocol):
    async def send(self, messages: list[Message]) -> None:
        """Returns once the broker has all of them, in this order for each key. Raises Unavailable."""
        ...
