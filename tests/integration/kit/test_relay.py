"""The relay: everything that was committed is sent, in order, by one relay at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from opentelemetry.trace import SpanKind

from services.contracts.errors import Unavailable
from services.kit.core import telemetry
from services.kit.core.clock import SystemClock, VirtualClock
from services.kit.messaging.envelope import Message
from services.kit.persistence.sql.relay import ADVISORY_LOCK, BATCH, Relay
from services.kit.persistence.sql.tables import OutboxRow
from tests.integration.kit.rooms import Room, feedback, room_at
from tests.unit.kit.spans import Spans, span_of, trace_of
from tests.waiting import LIMIT_SECONDS


@dataclass
class Broker:
    """`Sender` into a list; away as often as it is told."""

    sent: list[Message] = field(default_factory=list)
    calls: int = 0
    away: int = 0

    async def send(self, messages: list[Message]) -> None:
        self.calls += 1
        if self.away:
            self.away -= 1
            raise Unavailable(what="the broker")
        self.sent.extend(messages)

    @property
    def ids(self) -> list[str | None]:
        return [message.header("ce_id") for message in self.sent]


async def emit(room: Room, *keys: str) -> list[str]:
    async with room.store.transaction() as tx:
        return [await tx.emit(feedback(deployment=key)) for key in keys]


@asynccontextmanager
async def relaying(room: Room, broker: Broker) -> AsyncIterator[None]:
    task = asyncio.create_task(Relay(room.database, broker, SystemClock()).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], limit: float = LIMIT_SECONDS) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_events_leave_in_order_and_are_forgotten(room: Room) -> None:
    broker, relay = Broker(), None
    relay = Relay(room.database, broker, VirtualClock())
    made = await emit(room, *("abc" * 100))
    assert [await relay.send_pending() for _ in range(3)] == [BATCH, 100, 0]
    assert broker.ids == made
    assert [message.key for message in broker.sent[:3]] == [b"a", b"b", b"c"]
    assert await room.rows(OutboxRow) == []


async def test_what_could_not_be_sent_is_sent_again_in_the_same_order(room: Room) -> None:
    broker = Broker(away=2)
    relay = Relay(room.database, broker, VirtualClock())
    made = await emit(room, "a", "b", "a")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await relay.send_pending()
    assert len(await room.rows(OutboxRow)) == 3
    assert await relay.send_pending() == 3
    assert broker.ids == made


async def test_the_relay_waits_for_the_broker_and_drains_what_gathered_meanwhile(room: Room) -> None:
    broker = Broker(away=2)
    made = await emit(room, "a")
    async with relaying(room, broker):
        made += await emit(room, "a", "b")
        await until(lambda: len(broker.sent) == 3)
    assert broker.ids == made


async def test_a_commit_wakes_the_relay_at_once(room: Room) -> None:
    broker, delays = Broker(), list[float]()
    async with relaying(room, broker):
        await emit(room, "a")
        await until(lambda: len(broker.sent) == 1)
        for number in range(5):
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            await emit(room, "a")
            await until(lambda count=number + 2: len(broker.sent) == count)  # type: ignore[misc]
            delays.append(time.monotonic() - begun)
    assert min(delays) < 0.5  # without the wake-up each takes about a second


async def test_sending_is_a_span_under_the_one_that_emitted(room: Room, spans: Spans) -> None:
    broker = Broker()
    with telemetry.span("handled"):
        await emit(room, "a")
    await emit(room, "outside")
    await Relay(room.database, broker, VirtualClock()).send_pending()
    handled, sent = spans.only("handled"), spans.only("send feedback.received")
    assert sent.kind is SpanKind.PRODUCER
    assert sent.parent is not None
    assert f"{sent.parent.span_id:016x}" == span_of(handled)
    assert f"{trace_of(handled)}-{span_of(sent)}" in str(broker.sent[0].header("traceparent"))
    assert broker.sent[1].header("traceparent") is None


@pytest.mark.postgres
async def test_of_two_relays_on_postgresql_one_sends_and_the_other_follows_when_it_ends(postgres_url: str) -> None:
    rooms, brokers = [room_at(postgres_url, SystemClock()) for _ in range(2)], [Broker(), Broker()]
    for room in rooms:
        await room.database.open()
    async with relaying(rooms[0], brokers[0]):
        await emit(rooms[0], "a")
        await until(lambda: len(brokers[0].sent) == 1)
        second = Relay(rooms[1].database, brokers[1], SystemClock())
        waiting = asyncio.create_task(second.run())
        await emit(rooms[1], "a", "b")
        await until(lambda: len(brokers[0].sent) == 3)
        assert brokers[1].calls == 0
    await emit(rooms[0], "c")
    await until(lambda: b"c" in {message.key for message in brokers[1].sent})
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for room in rooms:
        await room.database.close()


@pytest.mark.postgres
async def test_a_relay_whose_connection_broke_asks_for_its_lock_again(postgres_url: str) -> None:
    room, broker = room_at(postgres_url, SystemClock()), Broker()
    await room.database.open()
    holders = sa.text(f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = {ADVISORY_LOCK}")
    async with relaying(room, broker):
        await emit(room, "a")
        await until(lambda: len(broker.sent) == 1)
        async with room.store.transaction() as tx:
            (before,) = (await tx.execute(holders)).scalars().all()
            await tx.execute(sa.text(f"SELECT pg_terminate_backend({before})"))
        await emit(room, "b")
        await until(lambda: len(broker.sent) == 2)
        async with room.store.reading() as tx:
            (after,) = (await tx.execute(holders)).scalars().all()
        assert after != before
    async with room.store.reading() as tx:
        assert (await tx.execute(holders)).scalars().all() == []
    await room.database.close()


async def test_the_relay_waits_for_a_database_that_is_away(database_url: str) -> None:
    room, broker = room_at(database_url, SystemClock()), Broker()
    async with relaying(room, broker):
        await asyncio.sleep(0.05)
        await room.database.open()
        await emit(room, "a")
        await until(lambda: len(broker.sent) == 1)
    await room.database.close()
