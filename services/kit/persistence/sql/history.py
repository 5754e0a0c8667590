"""The history: facts numbered from 1 and chained by SHA-256, so that none can be changed or dropped unseen."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from services.contracts.errors import Conflict
from services.kit.core.hash_chain import FACT_FIELDS, GENESIS, HistoryFilter, entry_hash
from services.kit.persistence.sql.tables import HistoryHeadRow, HistoryRow
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork, columns

PAGE: Final = 500


class BrokenHistory(Conflict):
    """The history is broken at entry {sequence}: {problem}."""

    hint = "restore the database from its last good backup, or rebuild it from the topic registry.history"


@dataclass(frozen=True)
class Entry:
    """One fact as it stands in the history."""

    sequence: int
    tenant: str
    stream: str
    kind: str
    payload: Mapping[str, Any]
    actor: str
    reason: str
    at: datetime
    previous_hash: str
    hash: str


async def append(
    work: SqlUnitOfWork,
    *,
    tenant: str,
    stream: str,
    kind: str,
    payload: Mapping[str, Any],
    actor: str,
    reason: str,
    at: datetime,
) -> Entry:
    """Adds a fact at the end. Writers wait for each other on the head's row, so the numbers have no gap."""
    head = columns(HistoryHeadRow)
    await work.insert_once(HistoryHeadRow, {"id": 1, "sequence": 0, "hash": GENESIS})
    row = (await work.execute(work.lock(sa.select(head).where(head.c.id == 1)))).one()
    sequence = row.sequence + 1
    fact: dict[str, Any] = {"tenant": tenant, "stream": stream, "kind": kind, "payload": dict(payload)}
    fact |= {"actor": actor, "reason": reason, "at": at.astimezone(UTC)}
    made = Entry(sequence=sequence, previous_hash=row.hash, hash=entry_hash(row.hash, sequence, fact), **fact)
    values = {**fact, "sequence": sequence, "previous_hash": row.hash, "hash": made.hash}
    await work.execute(sa.insert(columns(HistoryRow)).values(values))
    await work.execute(sa.update(head).where(head.c.id == 1).values(sequence=sequence, hash=made.hash))
    return made


async def entries(
    work: SqlUnitOfWork,
    *,
    tenant: str = "",
    stream: str = "",
    after: int = 0,
    before: int = 0,
    limit: int = PAGE,
    chosen: HistoryFilter | None = None,
) -> list[Entry]:
    """At most `limit` facts between the numbers `after` and `before` (0: no end), of one tenant where it is named."""
    chosen = chosen or HistoryFilter(stream=stream)
    t = columns(HistoryRow)
    order = t.c.sequence.desc() if chosen.newest_first else t.c.sequence
    query = sa.select(t).where(t.c.sequence > after, *_conditions(t, chosen)).order_by(order).limit(limit)
    if before:
        query = query.where(t.c.sequence < before)
    if tenant:
        query = query.where(t.c.tenant == tenant)
    return [Entry(**row._mapping) for row in await work.execute(query)]


def _conditions(t: sa.Table, chosen: HistoryFilter) -> list[sa.ColumnElement[bool]]:
    criteria = {"stream": chosen.stream, "kind": chosen.kind, "actor": chosen.actor}
    conditions: list[sa.ColumnElement[bool]] = [t.c[name] == value for name, value in criteria.items() if value]
    if chosen.since is not None:
        conditions.append(t.c.at >= chosen.since)
    if chosen.until is not None:
        conditions.append(t.c.at < chosen.until)
    return conditions


async def head(work: SqlUnitOfWork) -> tuple[int, str]:
    """The number and the hash of the last fact of all tenants; 0 and the genesis hash before the first."""
    table = columns(HistoryHeadRow)
    row = (await work.execute(sa.select(table).where(table.c.id == 1))).one_or_none()
    return (row.sequence, row.hash) if row else (0, GENESIS)


async def verified(work: SqlUnitOfWork) -> AsyncIterator[Entry]:
    """All facts in order, each checked against the chain, and the last against the head.

    Raises BrokenHistory at the first that does not fit. In a writing transaction nobody appends meanwhile.
    """
    table = columns(HistoryHeadRow)
    head = (await work.execute(work.lock(sa.select(table).where(table.c.id == 1)))).one_or_none()
    previous, sequence = GENESIS, 0
    while page := await entries(work, after=sequence):
        for entry in page:
            sequence += 1
            if entry.sequence != sequence:
                raise BrokenHistory(sequence=sequence, problem=f"the next entry is {entry.sequence}")
            fact = {name: getattr(entry, name) for name in FACT_FIELDS}
            if entry.previous_hash != previous or entry.hash != entry_hash(previous, sequence, fact):
                raise BrokenHistory(sequence=sequence, problem="its hash does not fit")
            previous = entry.hash
            yield entry
    if (sequence, previous) != ((head.sequence, head.hash) if head else (0, GENESIS)):
        raise BrokenHistory(sequence=sequence, problem="it is not the one that was written last")


def fold_hash(hashes: Iterable[str]) -> str:
    """One SHA-256 over many, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
