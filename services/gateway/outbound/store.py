"""The gateway's database: receipts of idempotency keys, and the kit's outbox."""

from datetime import datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from services.gateway.domain.requests import Accepted
from services.gateway.outbound.tables import ReceiptRow
from services.gateway.ports import Receipt
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

    async def reserve(self, tenant: str, key: str, fingerprint: str, *, at: datetime) -> Receipt | None:
        row = {"tenant": tenant, "key": key, "fingerprint": fingerprint, "event": "", "trace": "", "at": at}
        if await self.insert_once(ReceiptRow, row):
            return None
        table = columns(ReceiptRow)
        found = await self.execute(sa.select(table).where(table.c.tenant == tenant, table.c.key == key))
        kept = found.one()
        return Receipt(fingerprint=kept.fingerprint, accepted=Accepted(event_id=kept.event, trace_id=kept.trace))

    async def settle(self, tenant: str, key: str, accepted: Accepted) -> None:
        table = columns(ReceiptRow)
        mine = sa.and_(table.c.tenant == tenant, table.c.key == key)
        await self.execute(sa.update(table).where(mine).values(event=accepted.event_id, trace=accepted.trace_id))

    async def waiting_events(self) -> int:
        position = columns(OutboxRow).c.position
        first, last = sa.select(sa.func.min(position)), sa.select(sa.func.max(position))
        span = await self.execute(sa.select(last.scalar_subquery() - first.scalar_subquery() + 1))
        return span.scalar_one() or 0

    async def forget_receipts(self, before: datetime) -> None:
        table = columns(ReceiptRow)
        await self.execute(sa.delete(table).where(table.c.at < before))


def store(database: Database, clock: Clock, ids: Ids) -> SqlStore[GatewayTx]:
    return SqlStore(database, lambda session: GatewayTx(session, clock=clock, ids=ids, source=SOURCE))
