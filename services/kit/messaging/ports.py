"""What sending promises, and a broker that is no server."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.kit.messaging.envelope import Message


class Sender(Protocol):
    async def send(self, messages: list[Message]) -> None:
        """Returns once the broker has all of them, in this order for each key. Raises Unavailable."""
        ...


class Group(Protocol):
    """What receives each message of its topics once."""

    @property
    def topics(self) -> Sequence[str]: ...

    async def deliver(self, message: Message) -> None:
        """Returns when the message may be forgotten."""
        ...


@dataclass(frozen=True)
class MessageConsumer:
    """A consumer of aiokafka's by its function for one message."""

    topics: Sequence[str]
    handle: Callable[[Message], Awaitable[None]]

    async def deliver(self, message: Message) -> None:
        await self.handle(message)


class Broker(Sender, Protocol):
    """Carries messages to the consumers of its own process, such as `InMemoryBroker`."""

    def join(self, groups: Sequence[Group]) -> None:
        """Their topics' messages are theirs from now on."""
        ...
