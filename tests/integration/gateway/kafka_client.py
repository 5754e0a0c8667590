"""A program that asks by Kafka, as one outside does: a plain consumer and producer, its own keys and ids."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from tests.waiting import LIMIT_SECONDS

REQUESTED = "inference.requested"
COMPLETED = "inference.completed"
DEAD = "inference.requested.dlq"


@dataclass(frozen=True)
class Received:
    """A record of `inference.completed`, or a dead letter."""

    topic: str
    key: bytes | None
    headers: dict[str, str]
    value: bytes

    @property
    def body(self) -> dict[str, Any]:
        records: dict[str, Any] = json.loads(self.value)
        return records

    @property
    def id(self) -> str:
        return self.headers["ce_id"]


@dataclass
class Asker:
    """Sends requests, and reads what comes back in the order in which it comes."""

    producer: AIOKafkaProducer
    consumer: AIOKafkaConsumer

    async def send(
        self, body: Mapping[str, Any] | bytes, *, key: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        value = body if isinstance(body, bytes) else json.dumps(body).encode()
        received = [(name, text.encode()) for name, text in (headers or {}).items()]
        await self.producer.send_and_wait(REQUESTED, value, key=key, headers=received)

    async def send_request(
        self, body: Mapping[str, Any], event_id: str, key: bytes | None = None, **attributes: str
    ) -> None:
        """In CloudEvents binary mode."""
        headers = {"ce_specversion": "1.0", "ce_id": event_id, "ce_type": "millrace.inference.requested.v1"}
        await self.send(body, key=key, headers={**headers, "ce_source": "/test", **attributes})

    async def received(self, count: int) -> list[Received]:
        """The next records, so many of them."""
        records: list[Received] = []
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(records) < count:
                for batch in (await self.consumer.getmany(timeout_ms=100)).values():
                    records.extend(map(_received, batch))
        return records

    async def nothing_more(self, seconds: float = 1.0) -> None:
        """Fails the test when anything comes within that time."""
        await asyncio.sleep(seconds)
        left = [_received(one) for records in (await self.consumer.getmany(timeout_ms=600)).values() for one in records]
        assert left == []


def _received(record: ConsumerRecord) -> Received:
    headers = {name: value.decode() for name, value in record.headers}
    return Received(record.topic, record.key, headers, record.value)


@asynccontextmanager
async def kafka_client(bootstrap: str) -> AsyncIterator[Asker]:
    """Sees what is told from now on, dead letters too."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=50)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await consumer.start()
    await producer.start()
    try:
        partitions = []
        for topic in (COMPLETED, DEAD):
            await consumer._client.add_topic(topic)
            await consumer._client.force_metadata_update()
            partitions += [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        for gateway, end in (await consumer.end_offsets(partitions)).items():
            consumer.seek(gateway, end)
        yield Asker(producer, consumer)
    finally:
        await producer.stop()
        await consumer.stop()
