"""The history: facts numbered from 1 and chained by SHA-256, so that none can be changed or dropped unseen."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
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
    row = (await work.execute(sa.select(head).where(head.c.id == 1).with_for_update())).one()
    sequence = row.sequence + 1
    fact: dict[str, Any] = {"tenant": tenant, "stream": stream, "kind": kind, "payload": dict(payload)}
    fact |= {"actor": actor, "reason": reason, "at": at}
    made = Entry(sequence=sequence, previous_hash=row.hash, hash=entry_hash(row.hash, sequence, fact), **fact)
    values = {**fact, "sequence": sequence, "previous_hash": row.hash, "hash": made.hash}
    await work.execute(sa.insert(columns(HistoryRow)).values(values))
    await work.execute(sa.update(head).where(head.c.id == 1).values(sequence=sequence, hash=made.hash))
    return made


async def entries(work: SqlUnitOfWork, *, stream: str = "", after: int = 0, limit: int = PAGE) -> list[Entry]:
    """At most `limit` facts after number `after`, in order; of one stream where one is named."""
    t = columns(HistoryRow)
    query = sa.select(t).where(t.c.sequence > after).order_by(t.c.sequence).limit(limit)
    if stream:
        query = query.where(t.c.stream == stream)
    return [Entry(**row._mapping) for row in await work.execute(query)]


async def verified(work: SqlUnitOfWork) -> AsyncIterator[Entry]:
    """All facts in order, each checked against the chain. Raises BrokenHistory at the first that does not fit."""
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


def fold_hash(hashes: Iterable[str]) -> str:
    """One SHA-256 over many, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
