"""The broker of the virtual loop: one process, no broker, every delivery in the order of sending."""

from collections import deque
from collections.abc import Sequence

from services.kit.envelope import Message
from services.kit.messaging.delivery import Delivery


class InMemoryBroker:
    """A sender whose messages wait until `deliver_all` hands them to every group."""

    def __init__(self) -> None:
        self._pending: deque[Message] = deque()
        self._groups: list[Delivery] = []
        self.sent: list[Message] = []

    def join(self, groups: Sequence[Delivery]) -> None:
        self._groups.extend(groups)

    async def send(self, messages: list[Message]) -> None:
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
