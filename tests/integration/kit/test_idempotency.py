"""A key is used once: its receipt commits with the effect, and a repetition finds the first answer."""

from datetime import timedelta

import pytest

from services.kit.core.clock import VirtualClock
from services.kit.core.idempotency import RETENTION, IdempotencyKey, KeyReused, bind_key
from services.kit.persistence.sql.cleanup import Cleanup
from services.kit.persistence.sql.tables import OutboxRow, ReceiptRow
from tests.integration.kit.rooms import Room, feedback


def asked(request: bytes, *, tenant: str = "default") -> IdempotencyKey:
    made = bind_key(tenant, "key-1", b"method", request)
    assert made is not None
    return made


ASKED = asked(b"request")
OTHER = asked(b"another request")


class Broken(Exception):
    """The handler failed."""


async def test_a_repetition_gets_the_first_answer(room: Room) -> None:
    async with room.store.transaction() as tx:
        assert await tx.find_idempotent_response(ASKED) is None
        await tx.save_idempotent_response(ASKED, "run-1")
    for _ in range(2):
        async with room.store.transaction() as tx:
            assert await tx.find_idempotent_response(ASKED) == "run-1"


async def test_a_key_with_another_request_is_refused(room: Room) -> None:
    async with room.store.transaction() as tx:
        await tx.find_idempotent_response(ASKED)
    with pytest.raises(KeyReused):
        async with room.store.transaction() as tx:
            await tx.find_idempotent_response(OTHER)


async def test_tenants_do_not_share_keys(room: Room) -> None:
    theirs = asked(b"another request", tenant="acme")
    async with room.store.transaction() as tx:
        assert await tx.find_idempotent_response(ASKED) is None
        assert await tx.find_idempotent_response(theirs) is None


async def test_a_request_that_failed_has_not_used_its_key(room: Room) -> None:
    with pytest.raises(Broken):  # noqa: PT012 - the block is the transaction
        async with room.store.transaction() as tx:
            await tx.find_idempotent_response(ASKED)
            await tx.emit(feedback())
            raise Broken
    assert await room.rows(OutboxRow) == []
    async with room.store.transaction() as tx:
        assert await tx.find_idempotent_response(ASKED) is None


async def test_a_key_counts_as_new_after_its_time_and_its_row_goes(room: Room) -> None:
    assert isinstance(room.clock, VirtualClock)
    async with room.store.transaction() as tx:
        await tx.find_idempotent_response(ASKED)
    await room.clock.advance((RETENTION + timedelta(seconds=1)).total_seconds())
    async with room.store.transaction() as tx:
        assert await tx.find_idempotent_response(OTHER) is None
    await room.clock.advance((RETENTION + timedelta(seconds=1)).total_seconds())
    assert await Cleanup(room.database, room.clock).forget() == 1
    assert await room.rows(ReceiptRow) == []


def test_where_a_part_ends_is_part_of_what_was_asked() -> None:
    left, right = (
        bind_key("default", "key", b"ab", b"c"),
        bind_key("default", "key", b"a", b"bc"),
    )
    assert left is not None
    assert right is not None
    assert left.fingerprint != right.fingerprint


def test_without_a_key_each_call_counts() -> None:
    assert bind_key("default", "", b"request") is None
