"""A room of the kit's own tables, without business words."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from services.contracts.events import FeedbackReceived
from services.kit.core.clock import Clock, VirtualClock
from services.kit.core.ids import SystemIds
from services.kit.messaging.envelope import Envelope
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork, columns

SERVICES = Path(__file__).parents[3] / "services"
MIGRATIONS = SERVICES / "registry" / "outbound" / "migrations"
NOON = datetime.fromisoformat("2026-11-03T12:00:00+00:00")


@dataclass
class KitService:
    """One service's database, as the service sees it."""

    database: Database
    clock: Clock
    store: SqlStore[SqlUnitOfWork]

    async def rows(self, table: type[SQLModel]) -> list[Any]:
        t = columns(table)
        async with self.store.reading() as tx:
            return list(await tx.execute(sa.select(t).order_by(*t.primary_key.columns)))


def service_at(
    url: str, clock: Clock | None = None, *, migrations: Path = MIGRATIONS, pool_wait_seconds: float = 5.0
) -> KitService:
    """Not opened yet; several at one URL are several processes as far as the database can tell."""
    database = Database(url, migrations, pool_wait_seconds=pool_wait_seconds)
    clock, ids = clock or VirtualClock(NOON), SystemIds()

    def begin(session: AsyncSession) -> SqlUnitOfWork:
        return SqlUnitOfWork(session, clock=clock, ids=ids, source="millrace/test")

    return KitService(database, clock, SqlStore(database, begin))


def feedback(request: str = "req-1", *, deployment: str = "chapters") -> FeedbackReceived:
    return FeedbackReceived(deployment=deployment, request=request, label="files")


def envelope(name: str, *, tenant: str = "default") -> Envelope[FeedbackReceived]:
    return Envelope(id=name, event=feedback(name), source="test", time=NOON, tenant=tenant)
