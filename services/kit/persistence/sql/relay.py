"""The relay: sends what the outbox holds, in order, and forgets each event once the broker has it.

One relay a database: several would reorder the events of a key. A crash between sending and forgetting
sends the event again; receivers know it by its id.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from opentelemetry.trace import SpanKind
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession

from services.contracts.errors import MillraceError
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.messaging.envelope import TRACE_HEADERS, Message
from services.kit.messaging.ports import Sender
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.tables import OutboxRow
from services.kit.persistence.sql.unit_of_work import columns

BATCH: Final = 200
IDLE_SECONDS: Final = 1.0
"""How long the relay sleeps when no commit wakes it."""
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0
ADVISORY_LOCK: Final = 0x6D696C6C  # "mill"


class Relay:
    """A part of a service: runs until it is cancelled. While the database or the broker is away it waits."""

    def __init__(self, database: Database, sender: Sender, clock: Clock) -> None:
        self._database = database
        self._sender = sender
        self._clock = clock

    async def run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self._sole_relay() as still_sole:
                    while True:
                        self._database.committed.clear()
                        await still_sole()
                        sent = await self.send_pending()
                        pause = FIRST_PAUSE_SECONDS
                        if not sent:
                            with contextlib.suppress(TimeoutError):
                                await asyncio.wait_for(self._database.committed.wait(), IDLE_SECONDS)
            except MillraceError as error:
                logger.warning("the relay waits %.1f s: %s", pause, error)
                await self._clock.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def send_pending(self) -> int:
        """Sends one batch; how many events it held. Raises Unavailable, then everything is still in the outbox."""
        table = columns(OutboxRow)
        async with self._database.read() as session:
            connection = await session.connection()
            rows = (await connection.execute(sa.select(table).order_by(table.c.position).limit(BATCH))).all()
            depth = len(rows)
            if depth == BATCH:
                depth = (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
        telemetry.OUTBOX_DEPTH.set(depth)
        telemetry.OUTBOX_OLDEST.set((self._clock.now() - _created(rows[0])).total_seconds() if rows else 0.0)
        if not rows:
            return 0
        await self._sender.send([_message(row) for row in rows])
        async with self._database.write() as session:
            connection = await session.connection()
            await connection.execute(sa.delete(table).where(table.c.position.in_([row.position for row in rows])))
        telemetry.OUTBOX_DEPTH.set(depth - len(rows))
        return len(rows)

    @contextlib.asynccontextmanager
    async def _sole_relay(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """On PostgreSQL an advisory lock, held as long as its connection; a SQLite file has one service anyway.

        What it yields raises DatabaseDown when that connection, and with it the lock, is gone.
        """
        if self._database.is_sqlite:
            yield _nothing
            return
        while True:
            async with self._database.read() as session:
                if await _scalar(session, sa.func.pg_try_advisory_lock(ADVISORY_LOCK)):
                    try:
                        yield lambda: _scalar(session, sa.literal(1))
                    finally:
                        with contextlib.suppress(SQLAlchemyError):
                            await _scalar(session, sa.func.pg_advisory_unlock(ADVISORY_LOCK))
                    return
            await self._clock.sleep(LONGEST_PAUSE_SECONDS)


async def _scalar(session: AsyncSession, expression: sa.ColumnElement[Any]) -> Any:
    """The answer; no transaction stays open, which would keep PostgreSQL from cleaning up."""
    connection = await session.connection()
    answer = (await connection.execute(sa.select(expression))).scalar_one()
    await session.rollback()
    return answer


async def _nothing() -> None:
    return


def _created(row: Any) -> datetime:
    made: datetime = row.created_at
    return made


def _message(row: Any) -> Message:
    """The stored event, its trace context replaced by that of a `send` span under it."""
    headers = dict(row.headers)
    parent = {name: headers[name] for name in TRACE_HEADERS if name in headers}
    if parent:
        attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": row.topic,
            "messaging.message.id": headers.get("ce_id", ""),
        }
        with telemetry.span(f"send {row.topic}", kind=SpanKind.PRODUCER, parent=parent, attributes=attributes):
            headers |= telemetry.current_carrier()
    return Message(topic=row.topic, key=row.key.encode(), value=bytes(row.value), headers=tuple(headers.items()))
