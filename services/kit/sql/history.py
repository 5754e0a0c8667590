"""The history: facts numbered from 1 and chained by SHA-256, so that none can be changed or dropped unseen."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import sqlalchemy as sa

from services.contracts.errors import Conflict
from services.kit.sql.tables import HistoryHeadRow, HistoryRow
from services.kit.sql.work import SqlUnitOfWork, columns

GENESIS: Final = "0" * 64
PAGE: Final = 500
FACT_FIELDS: Final = ("tenant", "stream", "kind", "payload", "actor", "reason", "at")
"""What the hash covers, beside the number and the hash before it."""


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


def entry_hash(previous: str, sequence: int, fact: Mapping[str, Any]) -> str:
    """SHA-256 over the hash before it, the number, and the fact as JSON with sorted keys."""
    body = orjson.dumps(fact, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)
    return hashlib.sha256(previous.encode() + b"\n" + str(sequence).encode() + b"\n" + body).hexdigest()


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
    work: SqlUnitOfWork, *, tenant: str = "", stream: str = "", after: int = 0, limit: int = PAGE
) -> list[Entry]:
    """At most `limit` facts after number `after`, in order; of one tenant and one stream where they are named."""
    t = columns(HistoryRow)
    query = sa.select(t).where(t.c.sequence > after).order_by(t.c.sequence).limit(limit)
    if tenant:
        query = query.where(t.c.tenant == tenant)
    if stream:
        query = query.where(t.c.stream == stream)
    return [Entry(**row._mapping) for row in await work.execute(query)]


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
