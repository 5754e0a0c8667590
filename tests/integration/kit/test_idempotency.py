"""A key is used once: its receipt commits with the effect, and a repetition finds the first answer."""

from datetime import timedelta

import pytest

from services.kit.core.clock import VirtualClock
from services.kit.core.idempotency import RETENTION, IdempotencyKey, KeyReused, bind_key
from services.kit.persistence.sql.cleanup import Cleanup
from services.kit.persistence.sql.tables import IdempotencyKeyRow, OutboxRow
from tests.integration.kit.services import KitService, feedback


def requested(request: bytes, *, tenant: str = "default") -> IdempotencyKey:
    made = bind_key(tenant, "key-1", b"method", request)
    assert made is not None
    return made


KEY = requested(b"request")
OTHER = requested(b"another request")


class Broken(Exception):
    """The handler failed."""


async def test_a_repetition_gets_the_first_answer(service: KitService) -> None:
    async with service.store.transaction() as tx:
        assert await tx.find_idempotent_response(KEY) is None
        await tx.save_idempotent_response(KEY, "run-1")
    for _ in range(2):
        async with service.store.transaction() as tx:
            assert await tx.find_idempotent_response(KEY) == "run-1"


async def test_a_key_with_another_request_is_refused(service: KitService) -> None:
    async with service.store.transaction() as tx:
        await tx.find_idempotent_response(KEY)
    with pytest.raises(KeyReused):
        async with service.store.transaction() as tx:
            await tx.find_idempotent_response(OTHER)


async def test_tenants_do_not_share_keys(service: KitService) -> None:
    theirs = requested(b"another request", tenant="acme")
    async with service.store.transaction() as tx:
        assert await tx.find_idempotent_response(KEY) is None
        assert await tx.find_idempotent_response(theirs) is None


async def test_a_request_that_failed_has_not_used_its_key(service: KitService) -> None:
    with pytest.raises(Broken):  # noqa: PT012 - the block is the transaction
        async with service.store.transaction() as tx:
            await tx.find_idempotent_response(KEY)
            await tx.emit(feedback())
            raise Broken
    assert await service.rows(OutboxRow) == []
    async with service.store.transaction() as tx:
        assert await tx.find_idempotent_response(KEY) is None


async def test_a_key_counts_as_new_after_its_time_and_its_row_goes(service: KitService) -> None:
    assert isinstance(service.clock, VirtualClock)
    async with service.store.transaction() as tx:
        await tx.find_idempotent_response(KEY)
    await service.clock.advance((RETENTION + timedelta(seconds=1)).total_seconds())
    async with service.store.transaction() as tx:
        assert await tx.find_idempotent_response(OTHER) is None
    await service.clock.advance((RETENTION + timedelta(seconds=1)).total_seconds())
    assert await Cleanup(service.database, service.clock).forget() == 1
    assert await service.rows(IdempotencyKeyRow) == []


def test_where_a_part_ends_is_part_of_the_request() -> None:
    left, right = (
        bind_key("default", "key", b"ab", b"c"),
        bind_key("default", "key", b"a", b"bc"),
    )
    assert left is not None
    assert right is not None
    assert left.fingerprint != right.fingerprint


def test_without_a_key_each_call_counts() -> None:
    assert bind_key("default", "", b"request") is None
