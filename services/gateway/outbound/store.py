"""The gateway's database: the kit's outbox and idempotency keys, and batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from services.gateway.domain.batches import (
    Batch,
    BatchFact,
    BatchFailure,
    BatchSpec,
    BatchStatus,
    Outcome,
    Part,
)
from services.gateway.domain.requested import SOURCE
from services.gateway.outbound.tables import BatchPartRow, BatchRow
from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.persistence.sql import history
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.sql.tables import OutboxRow
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork, columns

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_STREAM: Final = "batch/"
_ENDED: Final = (BatchStatus.SUCCEEDED, BatchStatus.FAILED, BatchStatus.CANCELLED)


class GatewayTx(SqlUnitOfWork):
    """One transaction of the gateway."""

    async def waiting_events(self) -> int:
        position = columns(OutboxRow).c.position
        first, last = sa.select(sa.func.min(position)), sa.select(sa.func.max(position))
        span = await self.execute(sa.select(last.scalar_subquery() - first.scalar_subquery() + 1))
        return span.scalar_one() or 0

    async def batch(self, tenant: str, batch: str) -> Batch | None:
        t = columns(BatchRow)
        query = self.lock(sa.select(t).where(t.c.tenant == tenant, t.c.id == batch))
        row = (await self.execute(query)).one_or_none()
        return _batch(row) if row else None

    async def save_batch(self, batch: Batch, facts: Sequence[BatchFact], *, actor: str, reason: str) -> None:
        for fact in facts:
            await history.append(
                self,
                tenant=batch.tenant,
                stream=_STREAM + batch.id,
                kind=fact.kind,
                payload=fact.model_dump(mode="json"),
                actor=actor,
                reason=reason,
                at=self._clock.now(),
            )
        row = {name: getattr(batch, name) for name in BatchRow.model_fields if name != "deployment"}
        row |= {"deployment": batch.spec.deployment, "versions": list(batch.versions)}
        row |= {
            name: value.model_dump(mode="json") if value is not None else None
            for name, value in (("spec", batch.spec), ("failure", batch.failure), ("outcome", batch.outcome))
        }
        await self.upsert(BatchRow, row, keys=["tenant", "id"])

    async def save_part(self, batch: Batch, part: Part) -> None:
        row = {
            "tenant": batch.tenant,
            "batch": batch.id,
            "number": part.number,
            "part": part.model_dump(mode="json"),
        }
        await self.execute(sa.insert(columns(BatchPartRow)).values(row))
        await self.save_batch(batch, (), actor="", reason="")

    async def parts(self, tenant: str, batch: str) -> list[Part]:
        t = columns(BatchPartRow)
        query = sa.select(t.c.part).where(t.c.tenant == tenant, t.c.batch == batch).order_by(t.c.number)
        return [Part.model_validate(row.part) for row in await self.execute(query)]

    async def batches(self, tenant: str, *, deployment: str, status: str, before: str, limit: int) -> list[Batch]:
        t = columns(BatchRow)
        query = sa.select(t).where(t.c.tenant == tenant).order_by(t.c.id.desc()).limit(limit)
        for column, value in ((t.c.deployment, deployment), (t.c.status, status)):
            if value:
                query = query.where(column == value)
        if before:
            query = query.where(t.c.id < before)
        return [_batch(row) for row in await self.execute(query)]

    async def open_batches(self, tenant: str) -> int:
        t = columns(BatchRow)
        query = sa.select(sa.func.count()).where(t.c.tenant == tenant, t.c.status.not_in(_ENDED))
        count: int = (await self.execute(query)).scalar_one()
        return count


def _batch(row: Any) -> Batch:
    return Batch(
        id=row.id,
        tenant=row.tenant,
        spec=BatchSpec.model_validate(row.spec),
        created_by=row.created_by,
        created_at=row.created_at,
        status=BatchStatus(row.status),
        attempt=row.attempt,
        stamp=row.stamp,
        size_bytes=row.size_bytes,
        parts=row.parts,
        rows=row.rows,
        failed_rows=row.failed_rows,
        last_row=row.last_row,
        read_bytes=row.read_bytes,
        versions=tuple(row.versions),
        failure=BatchFailure.model_validate(row.failure) if row.failure else None,
        outcome=Outcome.model_validate(row.outcome) if row.outcome else None,
        ended_at=row.ended_at,
        trace_id=row.trace_id,
    )


def store(database: Database, clock: Clock, ids: Ids) -> SqlStore[GatewayTx]:
    return SqlStore(database, lambda session: GatewayTx(session, clock=clock, ids=ids, source=SOURCE))
