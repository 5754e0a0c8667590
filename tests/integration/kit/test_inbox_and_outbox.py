"""The inbox knows an event once; the outbox keeps news, in order, with the state they tell of."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from services.contracts.errors import TooLarge
from services.contracts.events import FeedbackReceived, RegistryFact
from services.kit.core import telemetry
from services.kit.core.clock import VirtualClock
from services.kit.core.retention import INBOX_RETENTION
from services.kit.messaging.envelope import Envelope, Message, StoredEventRef, decode
from services.kit.persistence.sql.cleanup import Cleanup
from services.kit.persistence.sql.tables import InboxRow, OutboxRow, TimerRow, UtcDateTime
from services.kit.persistence.sql.unit_of_work import columns
from services.kit.persistence.unit_of_work import JobRequest, Timer
from tests.integration.kit.services import NOON, KitService, envelope, feedback
from tests.unit.kit.spans import Spans


class Broken(Exception):
    """The handler failed."""


async def test_an_event_is_seen_for_the_first_time_once(service: KitService) -> None:
    async with service.store.transaction() as tx:
        assert await tx.mark_processed(envelope("e-1"))
        assert not await tx.mark_processed(envelope("e-1"))
        assert await tx.mark_processed(envelope("e-2"))
        assert await tx.mark_processed(envelope("e-1", tenant="acme"))
    async with service.store.transaction() as tx:
        assert not await tx.mark_processed(envelope("e-1"))


async def test_a_transaction_that_raises_keeps_nothing_and_wakes_nobody(service: KitService) -> None:
    with pytest.raises(Broken):  # noqa: PT012 - the block is the transaction
        async with service.store.transaction() as tx:
            await tx.mark_processed(envelope("e-1"))
            await tx.emit(feedback())
            await tx.schedule(Timer("t", "bake", NOON))
            await tx.enqueue_job(JobRequest("job-1", "train"))
            raise Broken
    assert not service.database.committed.is_set()
    for table in (InboxRow, OutboxRow, TimerRow):
        assert await service.rows(table) == []
    async with service.store.transaction() as tx:
        assert await tx.mark_processed(envelope("e-1"))
        assert await tx.lease_job("train", "w", NOON, 30) is None
    assert service.database.committed.is_set()


async def test_what_is_written_while_only_reading_is_lost(service: KitService) -> None:
    async with service.store.reading() as tx:
        await tx.mark_processed(envelope("e-1"))
    assert await service.rows(InboxRow) == []


async def test_events_stand_in_the_outbox_in_the_order_of_emitting_with_all_that_surrounds_them(
    service: KitService, spans: Spans
) -> None:
    cause = StoredEventRef(id="e-0", correlation_id="story-1", tenant="acme")
    with telemetry.span("asked") as requested:
        async with service.store.transaction() as tx:
            made = [await tx.emit(feedback(f"r-{number}"), cause=cause) for number in range(20)]
            own = await tx.emit(feedback("own"), tenant="other")
    rows = await service.rows(OutboxRow)
    output = [decode(Message(r.topic, r.key.encode(), r.value, tuple(r.headers.items())), NOON) for r in rows]
    assert [one.id for one in output] == [*made, own]
    first = output[0]
    assert first == Envelope(
        id=made[0],
        event=feedback("r-0"),
        source="millrace/test",
        time=NOON,
        tenant="acme",
        causation="e-0",
        correlation="story-1",
        trace=first.trace,
    )
    assert f"{requested.get_span_context().trace_id:032x}" in first.trace["traceparent"]
    assert (output[-1].tenant, output[-1].causation, output[-1].correlation_id) == ("other", "", own)


async def test_an_event_that_no_broker_takes_is_refused_before_it_blocks_the_outbox(service: KitService) -> None:
    fact = RegistryFact(
        sequence=1, stream="s", kind="k", payload={"x": "y" * 900_000}, actor="a", reason="r", at=NOON,
        previous_hash="", hash="",
    )  # fmt: skip
    with pytest.raises(TooLarge):
        async with service.store.transaction() as tx:
            await tx.emit(fact)
    assert await service.rows(OutboxRow) == []


async def test_400_events_delivered_twice_make_400_jobs(service: KitService) -> None:
    async def handle(name: str) -> None:
        async with service.store.transaction() as tx:
            if await tx.mark_processed(envelope(name)):
                await tx.enqueue_job(JobRequest(f"job-{name}", "train"), cause=envelope(name))
                await tx.emit(FeedbackReceived(deployment="chapters", request=name, label="x"))

    names = [f"e-{number}" for number in range(400)]
    for part in range(0, 800, 8):  # eight at once, each twice among them
        await asyncio.gather(*(handle(name) for name in (names + names)[part : part + 8]))
    async with service.store.transaction() as tx:
        leased = set[str]()
        while job := await tx.lease_job("train", "w", NOON, 30):
            leased.add(job.id)
    assert leased == {f"job-{name}" for name in names}
    assert len(await service.rows(OutboxRow)) == 400


async def test_the_same_event_handled_twice_at_once_has_one_effect(service: KitService) -> None:
    async def handle() -> bool:
        async with service.store.transaction() as tx:
            first = await tx.mark_processed(envelope("e-1"))
            await asyncio.sleep(0.01)
            return first

    assert sorted(await asyncio.gather(*(handle() for _ in range(6)))) == [False] * 5 + [True]


async def test_a_timer_is_moved_by_its_key_and_taken_once(service: KitService) -> None:
    cause = StoredEventRef(id="e-1", correlation_id="s-1", tenant="acme")
    first = Timer("t", "bake", NOON, {"step": 1}, tenant="acme", cause=cause, trace={"traceparent": "x"})
    later = NOON + timedelta(seconds=1, microseconds=1)
    async with service.store.transaction() as tx:
        await tx.schedule(first)
        await tx.schedule(Timer("u", "bake", NOON + timedelta(hours=1)))
        await tx.schedule(Timer("gone", "bake", NOON))
        await tx.cancel_timer("gone")
    assert await service.store.due_timers(NOON, 10) == [first]
    async with service.store.transaction() as tx:
        await tx.schedule(Timer("t", "bake", later, {"step": 2}))
        assert not await tx.take_timer(first)
    assert await service.store.due_timers(NOON, 10) == []
    (due,) = await service.store.due_timers(later, 10)
    assert (due.due, due.payload, due.cause) == (later, {"step": 2}, None)
    async with service.store.transaction() as tx:
        assert await tx.take_timer(due)
        assert not await tx.take_timer(due)


async def test_due_timers_come_the_earliest_first_and_no_more_than_the_limit(service: KitService) -> None:
    async with service.store.transaction() as tx:
        for number in (3, 1, 2):
            await tx.schedule(Timer(f"t-{number}", "bake", NOON + timedelta(seconds=number)))
    due = await service.store.due_timers(NOON + timedelta(minutes=1), 2)
    assert [timer.key for timer in due] == ["t-1", "t-2"]


async def test_times_are_utc_in_and_out_whatever_their_zone_and_naive_ones_are_refused(service: KitService) -> None:
    east = datetime(2026, 11, 3, 14, 0, 0, 123_456, tzinfo=timezone(timedelta(hours=2)))
    async with service.store.transaction() as tx:
        await tx.schedule(Timer("t", "bake", east))
    (row,) = await service.rows(TimerRow)
    assert (row.due, row.due.utcoffset()) == (east, timedelta(0))
    with pytest.raises(Exception, match="a time without its zone cannot be stored"):
        async with service.store.transaction() as tx:
            await tx.schedule(Timer("naive", "bake", datetime(2026, 11, 3)))  # noqa: DTZ001 - refused
    assert UtcDateTime().process_bind_param(None, None) is None
    assert UtcDateTime().process_result_value(datetime(2026, 1, 1), None) == datetime(2026, 1, 1, tzinfo=UTC)  # noqa: DTZ001


async def test_sqlite_is_open_so_that_an_acknowledged_commit_survives_a_power_cut(service: KitService) -> None:
    if not service.database.is_sqlite:
        return
    async with service.store.reading() as tx:
        output = {
            name: (await tx.execute(sa.text(f"PRAGMA {name}"))).scalar_one() for name in ("journal_mode", "synchronous")
        }
    assert output == {"journal_mode": "wal", "synchronous": 2}


async def test_a_view_is_consistent_while_others_write(service: KitService) -> None:
    count = sa.select(sa.func.count()).select_from(columns(InboxRow))
    async with service.store.reading() as view:
        assert (await view.execute(count)).scalar_one() == 0
        async with service.store.transaction() as tx:
            await tx.mark_processed(envelope("e-1"))
        assert (await view.execute(count)).scalar_one() == 0
    assert len(await service.rows(InboxRow)) == 1


async def test_the_inbox_forgets_what_no_redelivery_can_bring(service: KitService) -> None:
    async with service.store.transaction() as tx:
        await tx.mark_processed(envelope("old"))
    assert isinstance(service.clock, VirtualClock)
    await service.clock.advance((INBOX_RETENTION + timedelta(hours=1)).total_seconds())
    async with service.store.transaction() as tx:
        await tx.mark_processed(envelope("new"))
    assert await Cleanup(service.database, service.clock).forget() == 1
    async with service.store.transaction() as tx:
        assert not await tx.mark_processed(envelope("new"))
        assert await tx.mark_processed(envelope("old"))


async def test_the_inbox_remembers_as_long_as_a_redelivery_can_come(service: KitService) -> None:
    """Until the last hour, however often it is tidied meanwhile: forgetting early is a second effect."""
    async with service.store.transaction() as tx:
        await tx.mark_processed(envelope("e-1"))
    assert isinstance(service.clock, VirtualClock)
    cleanup, shares = Cleanup(service.database, service.clock), 4
    for _ in range(shares):
        await service.clock.advance((INBOX_RETENTION - timedelta(hours=1)).total_seconds() / shares)
        assert await cleanup.forget() == 0
        async with service.store.transaction() as tx:
            assert not await tx.mark_processed(envelope("e-1"))
    await service.clock.advance(timedelta(hours=2).total_seconds())
    assert await cleanup.forget() == 1
