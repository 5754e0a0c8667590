"""Forgets what no redelivery can ask for any more, so that a database does not grow for ever."""

from typing import Final

import sqlalchemy as sa

from services.contracts.errors import MillraceError
from services.kit.core.clock import Clock
from services.kit.core.idempotency import RETENTION
from services.kit.core.log import logger
from services.kit.core.retention import INBOX_RETENTION
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.tables import IdempotencyKeyRow, InboxRow
from services.kit.persistence.sql.unit_of_work import columns

EVERY_SECONDS: Final = 3600.0


class Cleanup:
    """A part of a service: looks once an hour, and at start."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        while True:
            try:
                await self.forget()
            except MillraceError as error:
                logger.warning("inbox and idempotency keys are deleted later: %s", error)
            await self._clock.sleep(EVERY_SECONDS)

    async def forget(self) -> int:
        """How many events of the inbox and idempotency keys were old enough. Raises DatabaseDown."""
        inbox, idempotency_keys, now = columns(InboxRow), columns(IdempotencyKeyRow), self._clock.now()
        async with self._database.write() as session:
            connection = await session.connection()
            events = await connection.execute(sa.delete(inbox).where(inbox.c.handled_at < now - INBOX_RETENTION))
            keys = await connection.execute(sa.delete(idempotency_keys).where(idempotency_keys.c.at < now - RETENTION))
            return events.rowcount + keys.rowcount
