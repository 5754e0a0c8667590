"""Keys that were used before the receipts belonged to the kit keep their answers."""

import hashlib

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine

from services.contracts.events import DatasetReady
from services.gateway.domain.requests import Accepted, Caller
from services.gateway.handlers import announce_dataset
from services.gateway.outbound.store import MIGRATIONS, store
from services.kit.core.clock import VirtualClock
from services.kit.core.idempotency import KeyReused
from services.kit.core.ids import SystemIds
from services.kit.persistence.sql.database import Database
from tests.unit.gateway.fakes import GatewayFleet

EVENT = DatasetReady(dataset="texts", uri="file:///data/texts.jsonl", model="news")


async def former_database(url: str, clock: VirtualClock) -> None:
    """As the first release left it: one key was used, and its fingerprint made as it was made then."""
    fingerprint = hashlib.sha256(f"{EVENT.type_name()}\n{EVENT.model_dump_json()}".encode()).hexdigest()

    def first(connection: sa.Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        at = sa.column("at", sa.DateTime(timezone=True))
        names = ("tenant", "key", "fingerprint", "event", "trace")
        table = sa.table("receipt", *(sa.column(name) for name in names), at)
        row = {"tenant": "default", "key": "key-1", "fingerprint": fingerprint, "event": "evt-1", "trace": "ab" * 16}
        connection.execute(sa.insert(table).values(**row, at=clock.now()))

    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(first)
    await engine.dispose()


async def test_a_key_used_before_the_upgrade_gets_the_answer_that_it_got(database_url: str) -> None:
    fleet, caller = GatewayFleet(), Caller(tenant="default", idempotency_key="key-1")
    await former_database(database_url, fleet.clock)
    database = Database(database_url, MIGRATIONS)
    await database.open()
    try:
        idempotency_store = store(database, fleet.clock, SystemIds())
        fleet.store = idempotency_store  # type: ignore[assignment]
        assert await announce_dataset(EVENT, caller, fleet.ports) == Accepted("evt-1", "ab" * 16)
        async with idempotency_store.reading() as tx:
            assert await tx.waiting_events() == 0, "nothing is sent a second time"
        with pytest.raises(KeyReused):
            await announce_dataset(EVENT.model_copy(update={"dataset": "others"}), caller, fleet.ports)
    finally:
        await database.close()
