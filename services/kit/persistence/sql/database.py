"""One room's database: opening it, its transactions, and telling the relay that something was committed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Final
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from services.contracts.errors import Unavailable
from services.kit.persistence.sql.migrate import upgrade

BUSY_TIMEOUT_MS: Final = 5_000
POOL_WAIT_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 2.0
LOCKED_TRIES: Final = 50
LOCKED_PAUSE_SECONDS: Final = 0.1
READ_ONLY: Final = "millrace_read_only"
"""The execution option of a connection that only reads."""
MIGRATION_LOCK: Final = 0x6D696772  # "migr"


class DatabaseDown(Unavailable):
    """The database does not answer."""

    hint = "see the runbook 'OutboxStuck' when this lasts"


class Database:
    """SQLite in WAL mode that survives a power cut, or PostgreSQL; one URL decides."""

    def __init__(self, url: str, migrations: Path, *, pool_wait_seconds: float = POOL_WAIT_SECONDS) -> None:
        self.url = url
        self.migrations = migrations
        self._pool_wait_seconds = pool_wait_seconds
        self.committed = asyncio.Event()
        """Set after every writing transaction; whoever waits for work clears it."""
        self.is_sqlite = url.startswith("sqlite")
        self._engine: AsyncEngine | None = None
        self._one_writer = asyncio.Lock()
        self._threads: WeakSet[Thread] = WeakSet()

    async def open(self) -> None:
        """Connects and brings the schema up to date, one process at a time. Raises DatabaseDown."""
        if self.is_sqlite:
            path = sa.make_url(self.url).database
            if path and path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
        engine = self._engine or self._build_engine()
        try:
            await self._migrate(engine)
        except DatabaseDown:
            await self._end(engine)
            raise
        self._engine = engine

    async def _migrate(self, engine: AsyncEngine) -> None:
        """While another process turns the same new file to WAL, SQLite refuses at once, whatever the busy timeout."""
        for tried in range(1, LOCKED_TRIES + 1):
            try:
                async with _connection(engine, {}) as connection:
                    if not self.is_sqlite:
                        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
                    await connection.run_sync(upgrade, self.migrations)
                    await connection.commit()
                return
            except DatabaseDown as down:
                if tried == LOCKED_TRIES or "database is locked" not in str(down.__cause__):
                    raise
                await asyncio.sleep(LOCKED_PAUSE_SECONDS)

    async def close(self) -> None:
        if self._engine is not None:
            await self._end(self._engine)

    async def _end(self, engine: AsyncEngine) -> None:
        """Ends the connections, those too that were cut off or never came about: their threads still need the loop."""
        await engine.dispose()
        left = [thread for thread in self._threads if thread.is_alive()]
        await asyncio.gather(*(asyncio.to_thread(thread.join, CLOSE_SECONDS) for thread in left))

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
        options: dict[str, Any] = {READ_ONLY: read_only}
        if read_only and not self.is_sqlite:
            options["isolation_level"] = "REPEATABLE READ"
        async with _connection(self._engine, options) as connection:
            yield connection

    def _build_engine(self) -> AsyncEngine:
        if not self.is_sqlite:
            return create_async_engine(
                self.url, pool_size=5, max_overflow=5, pool_timeout=self._pool_wait_seconds, pool_pre_ping=True
            )
        engine = create_async_engine(self.url, pool_size=4, max_overflow=4, pool_timeout=self._pool_wait_seconds)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "do_connect", self._watch)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine

    def _watch(self, _dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
        """Has SQLAlchemy open its connections by `_open_sqlite`."""
        options["async_creator_fn"] = self._open_sqlite

    def _open_sqlite(self, *arguments: Any, **options: Any) -> Any:
        """A connection whose thread is known from its beginning, whether it comes about or not."""
        import aiosqlite  # a room on PostgreSQL never needs it

        connection = aiosqlite.connect(*arguments, **options)
        connection._thread.daemon = True
        self._threads.add(connection._thread)
        return connection


@asynccontextmanager
async def _connection(engine: AsyncEngine, options: dict[str, Any]) -> AsyncIterator[AsyncConnection]:
    async with AsyncExitStack() as stack:
        with _connecting():
            connection = await stack.enter_async_context(engine.connect())
            connection = await connection.execution_options(**options)
        with _querying():
            yield connection


@contextmanager
def _connecting() -> Iterator[None]:
    """The drivers raise errors of their own while a server starts or stops; whatever it is, there is no connection."""
    try:
        yield
    except Exception as error:
        raise DatabaseDown from error


@contextmanager
def _querying() -> Iterator[None]:
    """Only what the database raised means that it is away; an OSError of the block itself stays what it is."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolExhausted) as error:
        raise DatabaseDown from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseDown from error
        raise


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
