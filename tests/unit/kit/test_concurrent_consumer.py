"""The concurrent consumer's bounds: events in progress, their bytes, and offsets only of what was handled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from services.contracts.events import FeedbackReceived
from services.kit.core.clock import SystemClock
from services.kit.messaging.concurrent_consumer import NO_PARTITION, ConcurrentConsumer
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Envelope, encode
from tests.unit.kit.test_delivery import FakeSender
from tests.waiting import LIMIT_SECONDS

PARTITION = TopicPartition("feedback.received", 0)
MANY = 10_000_000


def record(number: int) -> SimpleNamespace:
    event = FeedbackReceived(deployment="topics", request=f"q-{number:02d}", label="a")
    message = encode(Envelope(id=f"e-{number:02d}", event=event, source="test", time=SystemClock().now()))
    headers = [(name, value.encode()) for name, value in message.headers]
    return SimpleNamespace(topic=message.topic, key=message.key, value=message.value, headers=headers, offset=number)


SIZE = len(record(0).value)


class FakeConsumer:
    """aiokafka's, as far as it is called; it gives a partition's records in order, one at a time or all there are."""

    def __init__(self, count: int, *, one_at_a_time: bool) -> None:
        self.most = 1 if one_at_a_time else MANY
        self.records = [record(number) for number in range(count)]
        self.committed: list[int] = []

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int = MANY
    ) -> dict[TopicPartition, list[SimpleNamespace]]:
        await asyncio.sleep(0)
        if partitions:
            assert partitions == (NO_PARTITION,)
            return {}
        most = min(max_records, self.most)
        given, self.records = self.records[:most], self.records[most:]
        if not given:
            await asyncio.sleep(timeout_ms / 1000)
        return {PARTITION: given}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed.append(offsets[PARTITION])

    def assignment(self) -> set[TopicPartition]:
        return set()


class Requests:
    """A handler whose events end when they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._may_end: dict[str, asyncio.Event] = {}

    async def handle(self, envelope: Envelope[Any]) -> None:
        self.begun.append(envelope.id)
        await self._may_end.setdefault(envelope.id, asyncio.Event()).wait()
        self.ended.append(envelope.id)

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self._may_end.setdefault(f"e-{number:02d}", asyncio.Event()).set()

    async def have_begun(self, count: int) -> None:
        """Returns once so many have begun, and no more begin soon after."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self.begun) < count:  # noqa: ASYNC110 - the consumer signals nothing
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert len(self.begun) == count


@asynccontextmanager
async def consuming(
    count: int, *, limit: int = 100, limit_bytes: int = MANY, one_at_a_time: bool = False
) -> AsyncIterator[tuple[Any, Requests]]:
    fake, requests = FakeConsumer(count, one_at_a_time=one_at_a_time), Requests()
    consumer = ConcurrentConsumer(
        FeedbackReceived,
        requests.handle,
        bootstrap_servers="",
        service="test",
        delivery=Delivery(FakeSender(), SystemClock(), service="test"),
        clock=SystemClock(),
        limit=limit,
        limit_bytes=limit_bytes,
    )
    task = asyncio.create_task(consumer.consume(fake))
    try:
        yield fake, requests
        requests.end(*range(count))
        await consumer.release()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_no_more_events_are_in_progress_than_the_limit_and_one_that_ends_makes_way_at_once() -> None:
    async with consuming(6, limit=2) as (_, requests):
        await requests.have_begun(2)
        requests.end(1)
        await requests.have_begun(3)
        requests.end(0, 2)
        await requests.have_begun(5)


async def test_no_more_is_fetched_once_the_bytes_in_progress_reach_their_limit() -> None:
    """Long before the limit of events; what ends gives its bytes back."""
    async with consuming(6, limit_bytes=2 * SIZE, one_at_a_time=True) as (_, requests):
        await requests.have_begun(2)
        requests.end(0)
        await requests.have_begun(3)
        requests.end(1, 2)
        await requests.have_begun(5)


async def test_only_what_was_handled_is_committed_and_the_rest_when_it_has_ended() -> None:
    async with consuming(4) as (fake, requests):
        await requests.have_begun(4)
        requests.end(0, 1, 3)
        async with asyncio.timeout(LIMIT_SECONDS):
            while not fake.committed:  # noqa: ASYNC110 - the consumer signals nothing
                await asyncio.sleep(0.01)
        assert fake.committed == [2]
    assert fake.committed == [2, 4]
    assert sorted(requests.ended) == ["e-00", "e-01", "e-02", "e-03"]
