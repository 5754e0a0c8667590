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
from tests.integration.kit.services import KitService, feedback, service_at
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


async def emit(service: KitService, *keys: str) -> list[str]:
    async with service.store.transaction() as tx:
        return [await tx.emit(feedback(deployment=key)) for key in keys]


@asynccontextmanager
async def relaying(service: KitService, broker: Broker) -> AsyncIterator[None]:
    task = asyncio.create_task(Relay(service.database, broker, SystemClock()).run())
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


async def test_events_leave_in_order_and_are_forgotten(service: KitService) -> None:
    broker, relay = Broker(), None
    relay = Relay(service.database, broker, VirtualClock())
    made = await emit(service, *("abc" * 100))
    assert [await relay.send_pending() for _ in range(3)] == [BATCH, 100, 0]
    assert broker.ids == made
    assert [message.key for message in broker.sent[:3]] == [b"a", b"b", b"c"]
    assert await service.rows(OutboxRow) == []


async def test_what_could_not_be_sent_is_sent_again_in_the_same_order(service: KitService) -> None:
    broker = Broker(away=2)
    relay = Relay(service.database, broker, VirtualClock())
    made = await emit(service, "a", "b", "a")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await relay.send_pending()
    assert len(await service.rows(OutboxRow)) == 3
    assert await relay.send_pending() == 3
    assert broker.ids == made


async def test_the_relay_waits_for_the_broker_and_drains_what_gathered_meanwhile(service: KitService) -> None:
    broker = Broker(away=2)
    made = await emit(service, "a")
    async with relaying(service, broker):
        made += await emit(service, "a", "b")
        await until(lambda: len(broker.sent) == 3)
    assert broker.ids == made


async def test_a_commit_wakes_the_relay_at_once(service: KitService) -> None:
    broker, delays = Broker(), list[float]()
    async with relaying(service, broker):
        await emit(service, "a")
        await until(lambda: len(broker.sent) == 1)
        for number in range(5):
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            await emit(service, "a")
            await until(lambda count=number + 2: len(broker.sent) == count)  # type: ignore[misc]
            delays.append(time.monotonic() - begun)
    assert min(delays) < 0.5  # without the wake-up each takes about a second


async def test_sending_is_a_span_under_the_one_that_emitted(service: KitService, spans: Spans) -> None:
    broker = Broker()
    with telemetry.span("handled"):
        await emit(service, "a")
    await emit(service, "outside")
    await Relay(service.database, broker, VirtualClock()).send_pending()
    handled, sent = spans.only("handled"), spans.only("send feedback.received")
    assert sent.kind is SpanKind.PRODUCER
    assert sent.parent is not None
    assert f"{sent.parent.span_id:016x}" == span_of(handled)
    assert f"{trace_of(handled)}-{span_of(sent)}" in str(broker.sent[0].header("traceparent"))
    assert broker.sent[1].header("traceparent") is None


@pytest.mark.postgres
async def test_of_two_relays_on_postgresql_one_sends_and_the_other_follows_when_it_ends(postgres_url: str) -> None:
    services, brokers = [service_at(postgres_url, SystemClock()) for _ in range(2)], [Broker(), Broker()]
    for service in services:
        await service.database.open()
    async with relaying(services[0], brokers[0]):
        await emit(services[0], "a")
        await until(lambda: len(brokers[0].sent) == 1)
        second = Relay(services[1].database, brokers[1], SystemClock())
        waiting = asyncio.create_task(second.run())
        await emit(services[1], "a", "b")
        await until(lambda: len(brokers[0].sent) == 3)
        assert brokers[1].calls == 0
    await emit(services[0], "c")
    await until(lambda: b"c" in {message.key for message in brokers[1].sent})
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for service in services:
        await service.database.close()


@pytest.mark.postgres
async def test_a_relay_whose_connection_broke_asks_for_its_lock_again(postgres_url: str) -> None:
    service, broker = service_at(postgres_url, SystemClock()), Broker()
    await service.database.open()
    holders = sa.text(f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = {ADVISORY_LOCK}")
    async with relaying(service, broker):
        await emit(service, "a")
        await until(lambda: len(broker.sent) == 1)
        async with service.store.transaction() as tx:
            (before,) = (await tx.execute(holders)).scalars().all()
            await tx.execute(sa.text(f"SELECT pg_terminate_backend({before})"))
        await emit(service, "b")
        await until(lambda: len(broker.sent) == 2)
        async with service.store.reading() as tx:
            (after,) = (await tx.execute(holders)).scalars().all()
        assert after != before
    async with service.store.reading() as tx:
        assert (await tx.execute(holders)).scalars().all() == []
    await service.database.close()


async def test_the_relay_waits_for_a_database_that_is_away(database_url: str) -> None:
    service, broker = service_at(database_url, SystemClock()), Broker()
    async with relaying(service, broker):
        await asyncio.sleep(0.05)
        await service.database.open()
        await emit(service, "a")
        await until(lambda: len(broker.sent) == 1)
    await service.database.close()
