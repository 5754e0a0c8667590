"""Dead letters on Kafka: read without a group from every partition, and sent by the gateway's producer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.contracts.topics import DLQ_SUFFIX
from services.gateway.domain.dead_letters import DeadLetter, DeadRecord, Position, read_record
from services.gateway.domain.redelivery import NewestIds
from services.gateway.errors import DeadLettersNotRead
from services.gateway.ports import DeadLetterScan, DeadLetterTopics
from services.kit.messaging.consumer_loop import POLL_MS, cut_connections
from services.kit.messaging.envelope import Message, id_of
from services.kit.messaging.ports import Sender
from services.kit.messaging.records import to_message

T = TypeVar("T")

READ_SECONDS: Final = 20
STOP_SECONDS: Final = 2.0
MAX_RECORDS: Final = 50_000
"""Held at once, without their bodies; some 2 kB each."""
FETCH_BYTES: Final = 8 * 1024 * 1024


class KafkaDeadLetters(DeadLetterTopics):
    """One reader at a time: whoever waits too long for the one before is refused as for a silent broker."""

    def __init__(self, bootstrap_servers: str, sender: Sender, *, max_records: int = MAX_RECORDS) -> None:
        self._servers = bootstrap_servers
        self._sender = sender
        self._max_records = max_records
        self._reader = asyncio.Lock()

    async def scan(self, topics: Sequence[str], since: datetime | None) -> DeadLetterScan:
        records: list[DeadRecord] = []
        not_read = 0
        async with self._reading([topic + DLQ_SUFFIX for topic in topics]) as consumer:
            async for chunk in _to_end(consumer, since):
                records += await asyncio.to_thread(_read_records, chunk)
                if (excess := len(records) - self._max_records) > 0:
                    records.sort(key=lambda record: record.written_at)
                    not_read += excess
                    del records[:excess]
        return DeadLetterScan(records, not_read)

    async def read(self, dead_letters: Sequence[DeadLetter], use: Callable[[DeadLetter, bytes], T]) -> list[T]:
        bodies: list[tuple[DeadLetter, bytes]] = []
        positions = {dead_letter.record.position: dead_letter for dead_letter in dead_letters}
        topics = sorted({dead_letter.topic + DLQ_SUFFIX for dead_letter in dead_letters})
        async with self._reading(topics) as consumer:
            async for chunk in _between(consumer, list(positions)):
                for record in chunk:
                    position = Position(record.topic.removesuffix(DLQ_SUFFIX), record.partition, record.offset)
                    if (dead_letter := positions.get(position)) is not None:
                        bodies.append((dead_letter, record.value or b""))
        return await asyncio.to_thread(lambda: [use(dead_letter, body) for dead_letter, body in bodies])

    async def newest_ids(self, topics: Sequence[str]) -> NewestIds:
        newest: dict[tuple[str, str], str] = {}
        async with self._reading(topics) as consumer:
            async for chunk in _to_end(consumer, None):
                newest.update(await asyncio.to_thread(_read_ids, chunk))
        return newest

    async def send(self, messages: list[Message]) -> None:
        await self._sender.send(messages)

    @asynccontextmanager
    async def _reading(self, topics: Sequence[str]) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer of all partitions of the topics, at their beginning."""
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self._servers,
            client_id="millrace-gateway-dead-letters",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_bytes=FETCH_BYTES,
            # Before the limit of the whole: a client that is cancelled while it connects leaves its connection open.
            request_timeout_ms=int(READ_SECONDS * 750),
        )
        try:
            async with asyncio.timeout(READ_SECONDS), self._reader:
                try:
                    await consumer.start()
                    yield consumer
                finally:
                    await _stop(consumer)
        except (KafkaError, TimeoutError, OSError) as error:
            raise DeadLettersNotRead(seconds=READ_SECONDS) from error


async def _to_end(consumer: AIOKafkaConsumer, since: datetime | None) -> AsyncIterator[list[Any]]:
    """Every record up to what is the end now, in chunks; with `since` those that were written then or later."""
    partitions = list(consumer.assignment())
    ends = await consumer.end_offsets(partitions)
    if since is not None:
        await _seek_time(consumer, partitions, since)
    async for chunk in _until(consumer, ends):
        yield [record for record in chunk if since is None or record.timestamp >= since.timestamp() * 1000]


async def _seek_time(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], since: datetime) -> None:
    """Where the broker has an index of times; the embedded one has none, and is read from the beginning."""
    time_ms = max(0, int(since.timestamp() * 1000))
    offsets = await consumer.offsets_for_times(dict.fromkeys(partitions, time_ms))
    for partition, first in offsets.items():
        if first is not None and first.offset >= 0:
            consumer.seek(partition, first.offset)


async def _between(consumer: AIOKafkaConsumer, positions: Sequence[Position]) -> AsyncIterator[list[Any]]:
    """The records from each partition's first position to its last, in chunks."""
    offsets: dict[TopicPartition, list[int]] = {}
    for position in positions:
        partition = TopicPartition(position.topic + DLQ_SUFFIX, position.partition)
        offsets.setdefault(partition, []).append(position.offset)
    ends = await consumer.end_offsets(list(offsets))
    others = consumer.assignment() - offsets.keys()
    consumer.pause(*others)
    for partition, numbers in offsets.items():
        consumer.seek(partition, min(numbers))
    async for chunk in _until(consumer, {part: min(ends[part], max(numbers) + 1) for part, numbers in offsets.items()}):
        yield chunk


async def _until(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> AsyncIterator[list[Any]]:
    """Records before these ends; a partition whose last records were compacted away has a position beyond them."""
    while not all([await consumer.position(partition) >= end for partition, end in ends.items()]):
        chunks = await consumer.getmany(*ends, timeout_ms=POLL_MS)
        for partition, records in chunks.items():
            yield [record for record in records if record.offset < ends[partition]]


def _read_records(records: Sequence[Any]) -> list[DeadRecord]:
    return [read_record(to_message(record), record.partition, record.offset, _written_at(record)) for record in records]


def _read_ids(records: Sequence[Any]) -> dict[tuple[str, str], str]:
    return {
        (record.topic, (record.key or b"").decode("utf-8", "replace")): id_of(to_message(record))
        for record in records
        if record.value is not None
    }


def _written_at(record: Any) -> datetime:
    return datetime.fromtimestamp(max(0, record.timestamp) / 1000, UTC)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    with suppress(KafkaError, TimeoutError, OSError):
        async with asyncio.timeout(STOP_SECONDS):
            await consumer.stop()
    await cut_connections(consumer)
