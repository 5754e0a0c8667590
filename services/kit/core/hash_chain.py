"""The chain of a history: what each hash covers, and which of its facts are asked for.

Whoever has the facts can recompute it, without a database.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

GENESIS: Final = "0" * 64
FACT_FIELDS: Final = ("tenant", "stream", "kind", "payload", "actor", "reason", "at")
"""What the hash covers, beside the number and the hash before it."""


@dataclass(frozen=True)
class HistoryFilter:
    """Which facts of a tenant are wanted; what is empty chooses nothing out."""

    stream: str = ""
    kind: str = ""
    actor: str = ""
    since: datetime | None = None
    """At or after."""
    until: datetime | None = None
    """Before."""
    newest_first: bool = False


def entry_hash(previous: str, sequence: int, fact: Mapping[str, Any]) -> str:
    """SHA-256 over the hash before it, the number, and the fact as JSON with sorted keys; `at` is a datetime in UTC."""
    body = orjson.dumps(fact, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)
    return hashlib.sha256(previous.encode() + b"\n" + str(sequence).encode() + b"\n" + body).hexdigest()
