"""Checking a history from outside: whatever is changed in it is found at the number where it was."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.hash_chain import check_chain
from services.kit.core.hash_chain import GENESIS, entry_hash

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIELDS = ["tenant", "stream", "kind", "actor", "reason", "detail_json", "at", "hash", "previous_hash"]
Entry = dict[str, Any]


def chain(length: int, *, others: frozenset[int] = frozenset()) -> tuple[list[Entry], Entry]:
    """As the doors tell it; of the numbers in `others` nothing but hashes. And the head."""
    entries: list[Entry] = []
    previous = GENESIS
    for number in range(1, length + 1):
        at = NOON + timedelta(microseconds=number * 1000)
        payload = {"version": number, "value": 1 / number, "text": "ü"}
        fact = {"tenant": "t", "stream": "model/m", "kind": "k", "actor": "a", "reason": "r"}
        made = entry_hash(previous, number, {**fact, "payload": payload, "at": at})
        response = {**fact, "detail_json": orjson.dumps(payload).decode(), "at": at.isoformat(timespec="milliseconds")}
        if number in others:
            response = {**dict.fromkeys(fact, ""), "detail_json": ""}
        entries.append({"sequence": number, "previous_hash": previous, "hash": made, **response})
        previous = made
    return entries, {"sequence": length, "hash": previous}


@given(st.integers(0, 12), st.frozensets(st.integers(1, 12)))
def test_a_complete_chain_holds_whosever_facts_are_in_it(length: int, others: frozenset[int]) -> None:
    checked = check_chain(*chain(length, others=others))
    assert (checked.broken_at, checked.facts + checked.links) == (None, length)
    assert checked.links == len([number for number in others if number <= length])


@pytest.mark.parametrize("field", FIELDS)
@given(number=st.integers(1, 8))
def test_what_was_changed_is_found_where_it_was_changed(field: str, number: int) -> None:
    entries, head = chain(8)
    other = {"detail_json": "{}", "at": NOON.isoformat()}
    entries[number - 1][field] = other.get(field, "f" * 64)
    checked = check_chain(entries, head)
    assert (checked.broken_at, checked.facts) == (number, number - 1)


@given(number=st.integers(1, 8), twice=st.booleans(), others=st.frozensets(st.integers(1, 8)))
def test_what_is_missing_or_there_twice_is_found(number: int, twice: bool, others: frozenset[int]) -> None:
    entries, head = chain(8, others=others)
    entries[number - 1 : number] = [entries[number - 1]] * 2 if twice else []
    assert check_chain(entries, head).broken_at == number + twice


def test_facts_written_after_the_head_was_read_are_left_for_the_next_time() -> None:
    entries, _ = chain(8)
    assert check_chain(entries, {"sequence": 5, "hash": entries[4]["hash"]}).facts == 5


@pytest.mark.parametrize("broken", ["not a time", "", None])
def test_what_cannot_be_read_does_not_fit(broken: object) -> None:
    entries, head = chain(3)
    entries[1]["at"] = broken
    assert check_chain(entries, head).broken_at == 2
