"""The gateway's database: the kit's outbox and receipts."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from services.kit.clock import Clock
from services.kit.ids import Ids
from services.kit.sql.database import Database
from services.kit.sql.store import SqlStore
from services.kit.sql.tables import OutboxRow
from services.kit.sql.work import SqlUnitOfWork, columns

MIGRATIONS: Final = Path(__file__).parent / "migrations"
SOURCE: Final = "millrace/gateway"


class GatewayTx(SqlUnitOfWork):
    """One transaction of the gateway."""

    async def waiting_events(self) -> int:
        position = columns(OutboxRow).c.position
        first, last = sa.select(sa.func.min(position)), sa.select(sa.func.max(position))
        span = await self.execute(sa.select(last.scalar_subquery() - first.scalar_subquery() + 1))
        return span.scalar_one() or 0


def store(database: Database, clock: Clock, ids: Ids) -> SqlStore[GatewayTx]:
    return SqlStore(database, lambda session: GatewayTx(session, clock=clock, ids=ids, source=SOURCE))
