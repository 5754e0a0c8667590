"""Migrations, a database that is away, and one that comes back."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.cli.launcher.ports import any_free
from services.kit.persistence.sql.database import Database, DatabaseDown
from services.kit.persistence.sql.migrate import check
from services.kit.persistence.sql.tables import InboxRow
from tests.fixtures.databases import PostgresServer
from tests.integration.kit.services import MIGRATIONS, SERVICES, KitService, envelope, service_at
from tests.waiting import LIMIT_SECONDS

SERVICES_WITH_TABLES = sorted(path.parents[1].name for path in SERVICES.glob("*/outbound/migrations"))


@pytest.mark.parametrize("name", SERVICES_WITH_TABLES)
async def test_the_migrations_make_the_tables_that_the_code_has(name: str, database_url: str) -> None:
    migrations = SERVICES / name / "outbound" / "migrations"
    database = Database(database_url, migrations)
    await database.open()
    await database.open()  # again: nothing is left to do
    try:
        async with database.write() as session:
            await (await session.connection()).run_sync(check, migrations)
    finally:
        await database.close()


async def test_services_that_start_at_once_migrate_once(database_url: str) -> None:
    services = [service_at(database_url) for _ in range(3)]
    await asyncio.gather(*(service.database.open() for service in services))
    async with services[0].store.transaction() as tx:
        assert await tx.mark_processed(envelope("e-1"))
    for service in services:
        assert len(await service.rows(InboxRow)) == 1
        await service.database.close()


async def test_a_database_that_was_never_opened_is_down(database_url: str) -> None:
    with pytest.raises(DatabaseDown):
        async with service_at(database_url).store.transaction():
            pass


@pytest.mark.parametrize("error", [FileNotFoundError("mine"), TimeoutError("mine"), ValueError("mine")], ids=repr)
async def test_an_error_of_the_block_itself_stays_what_it_is(service: KitService, error: Exception) -> None:
    with pytest.raises(type(error), match="mine"):
        async with service.store.transaction():
            raise error


async def test_a_sqlite_folder_that_cannot_be_used_is_a_database_that_is_down(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(DatabaseDown) as down:
        await Database(f"sqlite+aiosqlite:///{tmp_path}/state.db", MIGRATIONS).open()
    assert down.value.retryable


@pytest.mark.postgres
async def test_nobody_at_the_address_is_a_database_that_is_down(postgres_url: str) -> None:
    nowhere = sa.make_url(postgres_url).set(port=any_free()).render_as_string()
    with pytest.raises(DatabaseDown):
        await Database(nowhere, MIGRATIONS).open()
    with pytest.raises(DatabaseDown):
        await Database(postgres_url + "_that_is_not_there", MIGRATIONS).open()


async def test_more_transactions_than_connections_wait_for_their_turn(service: KitService) -> None:
    async def look() -> None:
        async with service.store.reading() as tx:
            await tx.execute(sa.text("SELECT 1"))
            await asyncio.sleep(0.01)

    await asyncio.gather(*(look() for _ in range(40)))


async def test_a_pool_that_stays_exhausted_is_a_database_that_is_down(database_url: str) -> None:
    service = service_at(database_url, pool_wait_seconds=0.1)
    exhausted, release = asyncio.Event(), asyncio.Event()
    await service.database.open()

    async def sit() -> None:
        try:
            async with service.store.reading() as tx:
                await tx.execute(sa.text("SELECT 1"))
                await release.wait()
        except DatabaseDown:
            exhausted.set()

    sitting = [asyncio.create_task(sit()) for _ in range(30)]
    await exhausted.wait()
    with pytest.raises(DatabaseDown):
        async with service.store.reading():
            pass
    release.set()
    await asyncio.gather(*sitting, return_exceptions=True)
    await service.database.close()


@pytest.fixture
def stoppable(postgres_server: PostgresServer, postgres_url: str) -> Iterator[PostgresServer]:
    """The server, which the test may stop; it runs again afterwards."""
    yield postgres_server
    if not (postgres_server.folder / "data" / "postmaster.pid").exists():
        switch(postgres_server, "start")


def switch(server: PostgresServer, how: str) -> None:
    """Starts it with the options it was first started with, or stops it at once."""
    data = server.folder / "data"
    if how == "start":
        options = (
            f"-p {server.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={server.folder} -c fsync=off"
        )
        server.run("pg_ctl", "-D", str(data), "-w", "-l", str(server.folder / "server.log"), "-o", options, "start")
    else:
        server.run("pg_ctl", "-D", str(data), "-m", "fast", "-w", "stop")


@pytest.mark.postgres
async def test_a_restart_of_postgresql_is_a_time_of_refusals_after_which_the_pool_heals(
    stoppable: PostgresServer, postgres_url: str
) -> None:
    service = service_at(postgres_url)
    await service.database.open()
    stored, refused = list[str](), 0

    async def write() -> None:
        nonlocal refused
        deadline = time.monotonic() + LIMIT_SECONDS
        while len(stored) < 20 or refused == 0:
            assert time.monotonic() < deadline
            name = f"e-{len(stored) + refused}"
            try:
                async with service.store.transaction() as tx:
                    await tx.mark_processed(envelope(name))
                    await asyncio.sleep(0.02)
            except DatabaseDown:
                refused += 1
                await asyncio.sleep(0.02)
            else:
                stored.append(name)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.2)
    await asyncio.to_thread(switch, stoppable, "stop")
    await asyncio.to_thread(switch, stoppable, "start")
    await writing
    assert set(stored) <= {row.event for row in await service.rows(InboxRow)}
    await service.database.close()
