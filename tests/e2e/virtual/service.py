"""A room as its app wires it, but driven one step at a time."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from services.kit.jobs.timers import TimerLoop
from services.kit.messaging.envelope import Message
from services.kit.messaging.in_memory import InMemorySubscribers
from services.kit.messaging.ports import Group
from services.kit.persistence.sql.relay import Relay
from services.kit.persistence.sql.tables import TimerRow
from services.kit.persistence.sql.unit_of_work import columns
from tests.e2e.virtual.faults import FragileDatabase


async def _nothing() -> None:
    return


@dataclass
class ServiceUnderTest:
    """What one service runs. `database`, `relay` and `timers` where it has them."""

    name: str
    groups: list[Group]
    """Its consumers: FastStream subscribers, and those of aiokafka."""
    database: FragileDatabase | None = None
    relay: Relay | None = None
    timers: TimerLoop | None = None
    opened: Callable[[], Awaitable[None]] = _nothing
    """What the service does at start, before it listens."""
    closed: Callable[[], Awaitable[None]] = _nothing
    next_due: datetime | None = field(default=None, init=False)
    """Of its timers, as of the last commit."""

    async def open(self) -> None:
        for group in self.groups:
            if isinstance(group, InMemorySubscribers):
                await group.open()
        await self.opened()

    async def close(self) -> None:
        await self.closed()
        for group in self.groups:
            if isinstance(group, InMemorySubscribers):
                await group.close()

    @property
    def topics(self) -> list[str]:
        return [topic for group in self.groups for topic in group.topics]

    async def deliver(self, message: Message) -> None:
        for group in self.groups:
            if message.topic in group.topics:
                await group.deliver(message)

    @property
    def is_dead(self) -> bool:
        return self.database is not None and self.database.dead

    async def run_scenario(self) -> int:
        """Sends what was committed; how many events that was."""
        if self.database is None or self.relay is None or not self.database.committed.is_set():
            return 0
        sent = 0
        while batch := await self.relay.send_pending():
            sent += batch
        self.database.committed.clear()
        self.next_due = await self._next_due(self.database)
        return sent

    async def handle_due(self, now: datetime) -> int:
        """Handles the timers that are due; how many those were."""
        if self.timers is None or self.next_due is None or self.next_due > now:
            return 0
        count = await self.timers.run_due()
        if self.database is not None:
            self.next_due = await self._next_due(self.database)
        return count

    async def _next_due(self, database: FragileDatabase) -> datetime | None:
        if self.timers is None:
            return None
        async with database.read() as session:
            connection = await session.connection()
            due = (await connection.execute(sa.select(sa.func.min(columns(TimerRow).c.due)))).scalar_one()
        assert due is None or isinstance(due, datetime)
        return due
