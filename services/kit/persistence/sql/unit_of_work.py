"""`UnitOfWork` on a SQL session; the same statements on SQLite and PostgreSQL."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from services.contracts.errors import TooLarge
from services.contracts.events import Event
from services.contracts.names import DEFAULT_TENANT
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.idempotency import RETENTION, IdempotencyKey, KeyReused
from services.kit.core.ids import Ids
from services.kit.messaging.envelope import MAX_EVENT_BYTES, Envelope, EventRef, StoredEventRef, encode
from services.kit.persistence.sql.database import READ_ONLY
from services.kit.persistence.sql.tables import IdempotencyKeyRow, InboxRow, JobRow, OutboxRow, TimerRow
from services.kit.persistence.unit_of_work import JOB_CANCELLED, Job, JobRequest, LostLease, Timer

WAITING = "waiting"
RUNNING = "running"


def columns(table: type[SQLModel]) -> sa.Table:
    """The SQLAlchemy table behind a SQLModel class."""
    return table.__table__  # type: ignore[attr-defined,no-any-return]


def _stored_ref(cause: EventRef | None) -> dict[str, str] | None:
    return (
        asdict(StoredEventRef(id=cause.id, correlation_id=cause.correlation_id, tenant=cause.tenant)) if cause else None
    )


def read_timer(row: Any) -> Timer:
    return Timer(
        key=row.key,
        kind=row.kind,
        due=row.due,
        payload=row.payload,
        tenant=row.tenant,
        cause=StoredEventRef(**row.cause) if row.cause else None,
        trace=row.trace,
    )


class SqlUnitOfWork:
    """One open transaction. A room's `Tx` derives from it and adds its own queries."""

    def __init__(self, session: AsyncSession, *, clock: Clock, ids: Ids, source: str) -> None:
        self.session = session
        self._clock = clock
        self._ids = ids
        self._source = source

    async def execute(self, statement: sa.Executable) -> sa.CursorResult[Any]:
        connection = await self.session.connection()
        return await connection.execute(statement)

    def lock(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """Locks the rows that are read until the transaction ends; not in one that only reads."""
        return query if self._reads_only() else query.with_for_update()

    async def lock_name(self, name: str) -> bool:
        """Locks what has no row yet, until the transaction ends. False where nobody else can be writing."""
        if self.session.get_bind().dialect.name == "sqlite" or self._reads_only():
            return False
        await self.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))
        return True

    def _reads_only(self) -> bool:
        bind = self.session.get_bind()
        return isinstance(bind, sa.Connection) and bool(bind.get_execution_options().get(READ_ONLY, False))

    async def upsert(self, table: type[SQLModel], values: dict[str, Any], *, keys: Sequence[str]) -> None:
        """Inserts the row, or replaces the one that has these keys."""
        statement: Any = self._insert(table).values(values)
        rest = {name: statement.excluded[name] for name in values if name not in keys}
        await self.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=rest))

    async def insert_once(self, table: type[SQLModel], values: dict[str, Any]) -> bool:
        """Inserts the row; False when one with its key is there already."""
        result = await self.execute(self._insert(table).values(values).on_conflict_do_nothing())
        return bool(result.rowcount)

    def _insert(self, table: type[SQLModel]) -> Any:
        dialect = self.session.get_bind().dialect.name
        return (sqlite.insert if dialect == "sqlite" else postgresql.insert)(columns(table))

    # --- inbox and outbox

    async def mark_processed(self, envelope: Envelope[Event]) -> bool:
        return await self.insert_once(
            InboxRow,
            {
                "event": envelope.id,
                "topic": envelope.event.topic,
                "tenant": envelope.tenant,
                "handled_at": self._clock.now(),
            },
        )

    async def emit(self, event: Event, *, cause: EventRef | None = None, tenant: str | None = None) -> str:
        envelope = Envelope(
            id=self._ids.new("evt"),
            event=event,
            source=self._source,
            time=self._clock.now(),
            tenant=tenant or (cause.tenant if cause else DEFAULT_TENANT),
            causation=cause.id if cause else "",
            correlation=cause.correlation_id if cause else "",
            trace=telemetry.current_carrier(),
        )
        message = encode(envelope)
        if len(message.value or b"") > MAX_EVENT_BYTES:  # the relay could never send it, nor anything behind it
            raise TooLarge(what=f"the event for {message.topic}", limit=f"{MAX_EVENT_BYTES} bytes")
        row = {
            "tenant": envelope.tenant,
            "topic": message.topic,
            "key": (message.key or b"").decode(),
            "value": message.value,
            "headers": dict(message.headers),
            "created_at": envelope.time,
        }
        await self.execute(sa.insert(columns(OutboxRow)).values(row))
        return envelope.id

    # --- idempotency keys

    async def find_idempotent_response(self, key: IdempotencyKey) -> str | None:
        now, t = self._clock.now(), columns(IdempotencyKeyRow)
        mine = sa.and_(t.c.tenant == key.tenant, t.c.key == key.key)
        await self.execute(sa.delete(t).where(mine, t.c.at < now - RETENTION))
        row = {
            "tenant": key.tenant,
            "key": key.key,
            "fingerprint": key.fingerprint,
            "answer": "",
            "at": now,
        }
        if await self.insert_once(IdempotencyKeyRow, row):
            return None
        stored = (await self.execute(sa.select(t).where(mine))).one()
        if stored.fingerprint != key.fingerprint:
            raise KeyReused
        answer: str = stored.answer
        return answer

    async def save_idempotent_response(self, key: IdempotencyKey, answer: str) -> None:
        t = columns(IdempotencyKeyRow)
        mine = sa.and_(t.c.tenant == key.tenant, t.c.key == key.key)
        await self.execute(sa.update(t).where(mine).values(answer=answer))

    # --- timers

    async def schedule(self, timer: Timer) -> None:
        row = {
            "key": timer.key,
            "kind": timer.kind,
            "due": timer.due,
            "tenant": timer.tenant,
            "payload": dict(timer.payload),
            "cause": _stored_ref(timer.cause),
            "trace": dict(timer.trace) or telemetry.current_carrier(),
        }
        await self.upsert(TimerRow, row, keys=["key"])

    async def cancel_timer(self, key: str) -> None:
        await self.execute(sa.delete(columns(TimerRow)).where(columns(TimerRow).c.key == key))

    async def take_timer(self, timer: Timer) -> bool:
        t = columns(TimerRow)
        result = await self.execute(sa.delete(t).where(t.c.key == timer.key, t.c.due == timer.due))
        return bool(result.rowcount)

    # --- jobs

    async def enqueue_job(self, request: JobRequest, *, cause: EventRef | None = None) -> None:
        now = self._clock.now()
        row = {
            "id": request.id,
            "kind": request.kind,
            "tenant": request.tenant,
            "state": WAITING,
            "payload": dict(request.payload),
            "cause": _stored_ref(cause),
            "trace": telemetry.current_carrier(),
            "created_at": now,
            "due": now,
            "owner": "",
            "fence": 0,
            "attempt": 0,
        }
        await self.insert_once(JobRow, row)

    async def lease_job(self, kind: str, owner: str, now: datetime, lease_seconds: float) -> Job | None:
        t = columns(JobRow)
        oldest = (
            sa.select(t.c.id)
            .where(t.c.kind == kind, t.c.state.in_((WAITING, RUNNING)), t.c.due <= now)
            .order_by(t.c.created_at, t.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        lease = {"state": RUNNING, "owner": owner, "due": now + timedelta(seconds=lease_seconds)}
        grown = {"fence": t.c.fence + 1, "attempt": t.c.attempt + 1}
        taken = await self.execute(sa.update(t).where(t.c.id == oldest).values(**lease, **grown).returning(*t.c))
        row = taken.one_or_none()
        if row is None:
            return None
        cause = StoredEventRef(**row.cause) if row.cause else None
        return Job(row.id, row.kind, row.payload, row.tenant, row.fence, row.attempt, row.trace, cause)

    async def renew_job(self, job: Job, now: datetime, lease_seconds: float) -> None:
        await self._change_job(job, due=now + timedelta(seconds=lease_seconds))

    async def release_job(self, job: Job, due: datetime) -> None:
        await self._change_job(job, state=WAITING, owner="", due=due)

    async def finish_job(self, job: Job, state: str) -> None:
        await self._change_job(job, state=state)

    async def cancel_job(self, job: str) -> bool:
        t = columns(JobRow)
        open_job = sa.and_(t.c.id == job, t.c.state.in_((WAITING, RUNNING)))
        result = await self.execute(sa.update(t).where(open_job).values(state=JOB_CANCELLED, fence=t.c.fence + 1))
        return bool(result.rowcount)

    async def _change_job(self, job: Job, **values: object) -> None:
        t = columns(JobRow)
        held = sa.and_(t.c.id == job.id, t.c.fence == job.fence, t.c.state == RUNNING)
        result = await self.execute(sa.update(t).where(held).values(**values))
        if not result.rowcount:
            raise LostLease(job=job.id)
