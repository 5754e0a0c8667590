"""A room's store: its database, and the room's own kind of transaction on it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Generic, TypeVar

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.tables import TimerRow
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork, columns, read_timer
from services.kit.persistence.unit_of_work import Timer

W = TypeVar("W", bound=SqlUnitOfWork)


class SqlStore(Generic[W]):
    """Opens transactions; `begin` makes the room's unit of work from a session."""

    def __init__(self, database: Database, begin: Callable[[AsyncSession], W]) -> None:
        self.database = database
        self._begin = begin

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[W]:
        """Everything in the block is kept when it ends, and nothing when it raises. Raises DatabaseDown."""
        async with self.database.write() as session:
            yield self._begin(session)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[W]:
        """The same queries, no write lock; what is written in it is lost."""
        async with self.database.read() as session:
            yield self._begin(session)

    async def due_timers(self, now: datetime, limit: int) -> list[Timer]:
        table = columns(TimerRow)
        query = sa.select(table).where(table.c.due <= now).order_by(table.c.due, table.c.key).limit(limit)
        async with self.reading() as work:
            return [read_timer(row) for row in await work.execute(query)]
