"""The history: numbered without a gap, chained, and any change to it is seen."""

import asyncio
from collections.abc import Callable
from datetime import timedelta, timezone

import pytest
import sqlalchemy as sa

from services.kit.core.hash_chain import GENESIS, entry_hash
from services.kit.persistence.sql import history
from services.kit.persistence.sql.history import BrokenHistory, Entry
from services.kit.persistence.sql.tables import HistoryHeadRow, HistoryRow
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork, columns
from tests.integration.kit.services import NOON, KitService, service_at

T = columns(HistoryRow)
HEAD = columns(HistoryHeadRow)


async def add(tx: SqlUnitOfWork, number: int, *, tenant: str = "default") -> Entry:
    return await history.append(
        tx,
        tenant=tenant,
        stream=f"model/{number % 3}",
        kind="counted",
        payload={"n": number, "share": 0.1 + 0.2, "text": "é\u2028", "b": 1, "a": [None, {"z": 1.0}]},
        actor="ada",
        reason="",
        at=(NOON + timedelta(microseconds=number)).astimezone(timezone(timedelta(hours=2))),
    )


async def fill(service: KitService, count: int = 7) -> list[Entry]:
    async with service.store.transaction() as tx:
        return [await add(tx, number) for number in range(count)]


async def read(service: KitService) -> list[Entry]:
    async with service.store.reading() as tx:
        return [entry async for entry in history.verified(tx)]


async def test_facts_are_numbered_from_one_chained_and_read_back_as_they_were_written(service: KitService) -> None:
    assert await read(service) == []
    written = await fill(service)
    assert [entry.sequence for entry in written] == [1, 2, 3, 4, 5, 6, 7]
    assert written[0].previous_hash == GENESIS
    assert [entry.previous_hash for entry in written[1:]] == [entry.hash for entry in written[:-1]]
    assert await read(service) == written
    async with service.store.transaction() as tx:
        assert [entry async for entry in history.verified(tx)] == written


async def test_a_stream_a_tenant_and_a_first_number_can_be_requested(service: KitService) -> None:
    await fill(service)
    async with service.store.transaction() as tx:
        await add(tx, 0, tenant="acme")
    async with service.store.reading() as tx:
        assert [e.sequence for e in await history.entries(tx, stream="model/0")] == [1, 4, 7, 8]
        assert [e.sequence for e in await history.entries(tx, stream="model/0", tenant="acme")] == [8]
        assert [e.sequence for e in await history.entries(tx, after=2, limit=3)] == [3, 4, 5]


async def test_a_transaction_that_raises_leaves_no_gap(service: KitService) -> None:
    await fill(service, 2)
    with pytest.raises(RuntimeError):  # noqa: PT012 - the block is the transaction
        async with service.store.transaction() as tx:
            await add(tx, 9)
            raise RuntimeError
    assert [entry.sequence for entry in await fill(service, 2)] == [3, 4]
    assert len(await read(service)) == 4


TAMPERING: dict[str, Callable[[], sa.Executable]] = {
    "payload": lambda: sa.update(T).where(T.c.sequence == 4).values(payload={"n": 99}),
    "actor": lambda: sa.update(T).where(T.c.sequence == 4).values(actor="eve"),
    "time": lambda: sa.update(T).where(T.c.sequence == 4).values(at=NOON),
    "tenant": lambda: sa.update(T).where(T.c.sequence == 4).values(tenant="eve"),
    "hash": lambda: sa.update(T).where(T.c.sequence == 4).values(hash="0" * 64),
    "dropped": lambda: sa.delete(T).where(T.c.sequence == 4),
    "last dropped": lambda: sa.delete(T).where(T.c.sequence == 7),
    "all dropped": lambda: sa.delete(T),
    "head": lambda: sa.update(HEAD).values(hash="0" * 64),
    "head gone": lambda: sa.delete(HEAD),
}


@pytest.mark.parametrize("how", TAMPERING)
async def test_whatever_is_changed_or_dropped_is_seen(service: KitService, how: str) -> None:
    await fill(service)
    async with service.store.transaction() as tx:
        await tx.execute(TAMPERING[how]())
    with pytest.raises(BrokenHistory, match="The history is broken at entry"):
        await read(service)


async def test_a_fact_that_is_forged_at_the_end_is_seen(service: KitService) -> None:
    last = (await fill(service))[-1]
    fact = {"tenant": "default", "stream": "s", "kind": "k", "payload": {}, "actor": "eve", "reason": "", "at": NOON}
    made = entry_hash(last.hash, 8, fact)
    async with service.store.transaction() as tx:
        await tx.execute(sa.insert(T).values({**fact, "sequence": 8, "previous_hash": last.hash, "hash": made}))
    with pytest.raises(BrokenHistory):
        await read(service)


async def test_writers_of_several_processes_leave_no_gap(service: KitService, database_url: str) -> None:
    other = service_at(database_url)
    await other.database.open()

    async def write(index: KitService) -> None:
        for number in range(6):
            async with index.store.transaction() as tx:
                await add(tx, number)
                await add(tx, number)

    try:
        await asyncio.gather(*(write(index) for index in (service, other, service, other)))
    finally:
        await other.database.close()
    assert [entry.sequence for entry in await read(service)] == list(range(1, 49))
