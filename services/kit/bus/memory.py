"""The bus of the virtual loop: one process, no broker, every delivery in the order of sending."""

from collections import deque
from collections.abc import Sequence

from services.kit.bus.delivery import Delivery
from services.kit.envelope import Message


class MemoryBus:
    """A sender whose messages wait until `deliver_all` hands them to every group."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._groups: list[Delivery] = []
        self.sent: list[Message] = []

    def join(self, groups: Sequence[Delivery]) -> None:
        self._groups.extend(groups)

    async def send(self, messages: list[Message]) -> None:
        self.sent.extend(messages)
        self._waiting.extend(messages)

    async def deliver_all(self) -> int:
        """Delivers until nothing waits, what handlers send meanwhile included; how many messages that was."""
        count = 0
        while self._waiting:
            message = self._waiting.popleft()
            count += 1
            for group in self._groups:
                if message.topic in group.topics:
                    await group.deliver(message)
        return count
