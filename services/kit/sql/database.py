"""One room's database: opening it, its transactions, and telling the relay that something was committed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from services.contracts.errors import Unavailable
from services.kit.sql.migrate import upgrade

BUSY_TIMEOUT_MS: Final = 5_000
POOL_WAIT_SECONDS: Final = 5.0
READ_ONLY: Final = "millrace_read_only"


class DatabaseDown(Unavailable):
    """The database does not answer."""

    hint = "see the runbook 'OutboxStuck' when this lasts"


class Database:
    """SQLite in WAL mode that survives a power cut, or PostgreSQL; one URL decides."""

    def __init__(self, url: str, migrations: Path) -> None:
        self.url = url
        self.migrations = migrations
        self.committed = asyncio.Event()
        """Set after every writing transaction; whoever waits for work clears it."""
        self.is_sqlite = url.startswith("sqlite")
        self._engine: AsyncEngine | None = None
        self._one_writer = asyncio.Lock()

    async def open(self) -> None:
        """Connects and brings the schema up to date. Raises DatabaseDown."""
        if self.is_sqlite:
            path = sa.make_url(self.url).database
            if path and path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._engine = self._build_engine()
        async with self._connection() as connection:
            await connection.run_sync(upgrade, self.migrations)
            await connection.commit()

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises.

        SQLite has one writer at a time, so writers of this process queue here instead of polling its lock.
        """
        if self.is_sqlite:
            async with self._one_writer, self._session() as session:
                yield session
        else:
            async with self._session() as session:
                yield session
        self.committed.set()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A consistent view that takes no write lock."""
        async with self._session(read_only=True) as session:
            yield session

    @asynccontextmanager
    async def _session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        async with self._connection(read_only=read_only) as connection:
            async with AsyncSession(bind=connection, expire_on_commit=False) as session:
                yield session
                if not read_only:
                    await session.commit()

    @asynccontextmanager
    async def _connection(self, *, read_only: bool = False) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:
            raise DatabaseDown
        try:
            async with self._engine.connect() as connection:
                yield await connection.execution_options(**{READ_ONLY: read_only})
        except (OperationalError, InterfaceError, OSError, TimeoutError) as error:
            raise DatabaseDown from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseDown from error
            raise

    def _build_engine(self) -> AsyncEngine:
        if not self.is_sqlite:
            return create_async_engine(
                self.url, pool_size=5, max_overflow=5, pool_timeout=POOL_WAIT_SECONDS, pool_pre_ping=True
            )
        engine = create_async_engine(self.url, pool_size=4, max_overflow=4, pool_timeout=POOL_WAIT_SECONDS)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """FULL: an acknowledged commit survives a power cut; NORMAL in WAL mode loses it."""
    connection.isolation_level = None  # the driver must not begin transactions of its own
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """A writer takes its lock at once: a read that turns into a write could only fail."""
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
