"""Checking the registry's history from outside: every hash is recomputed from what the doors tell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.kit.core.hash_chain import GENESIS, entry_hash


@dataclass(frozen=True)
class Checked:
    """`broken_at` is the first number that does not fit, none when all do."""

    facts: int
    links: int
    """Facts of other tenants: their place in the chain was checked, their content is not ours to see."""
    head: str
    broken_at: int | None = None
    problem: str = ""


def check_chain(entries: Iterable[Mapping[str, Any]], head: Mapping[str, Any]) -> Checked:
    """`entries` are the whole chain's, in order; those after the head came later and are left for the next time."""
    facts = links = sequence = 0
    previous = GENESIS
    for entry in entries:
        if entry["sequence"] > head["sequence"]:
            break
        problem = _problem(entry, sequence + 1, previous)
        if problem:
            return Checked(facts, links, previous, sequence + 1, problem)
        sequence, previous = entry["sequence"], entry["hash"]
        facts, links = (facts + 1, links) if entry["kind"] else (facts, links + 1)
    if (sequence, previous) != (head["sequence"], head["hash"]):
        problem = f"the chain does not end in its head, number {head['sequence']}"
        return Checked(facts, links, previous, sequence + 1, problem)
    return Checked(facts, links, previous)


def _problem(entry: Mapping[str, Any], expected: int, previous: str) -> str:
    if entry["sequence"] != expected:
        return f"number {entry['sequence']} stands where number {expected} belongs"
    if entry["previous_hash"] != previous:
        return "it does not follow the fact before it"
    if not entry["kind"]:
        return ""
    fact = {name: entry[name] for name in ("tenant", "stream", "kind", "actor", "reason")}
    try:
        fact |= {"payload": _json(entry["detail_json"]), "at": datetime.fromisoformat(entry["at"])}
    except (ValueError, TypeError):
        return "it cannot be read"
    return "" if entry_hash(previous, expected, fact) == entry["hash"] else "its hash does not fit what it says"


def _json(text: str) -> Any:
    import orjson

    return orjson.loads(text)
