"""Classification by Kafka, beside the same texts over REST: the two take turns, round by round.

A round by Kafka puts all its requests on `inference.requested` at once and ends with the last answer on
`inference.completed`; one by REST has as many clients as the gateway works on requests of the topic at once.
"""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench import serving
from bench.fleet import Fleet
from bench.report import Figure

ROUNDS: Final = 3
REQUESTS: Final = 800
LIMIT_SECONDS: Final = 120.0
COMPLETED: Final = "inference.completed"


@dataclass(frozen=True)
class _Round:
    per_second: float
    per_cpu_second: float


def measure(fleet: Fleet, texts: list[str], bootstrap: str) -> list[Figure]:
    by_kafka, by_rest = [], []
    asyncio.run(_by_kafka(bootstrap, texts, "warm", 100))
    for number in range(ROUNDS):
        begin, started = fleet.cpu_seconds(), time.monotonic()
        asyncio.run(_by_kafka(bootstrap, texts, f"round-{number}", REQUESTS))
        seconds = time.monotonic() - started
        by_kafka.append(_Round(REQUESTS / seconds, REQUESTS / (fleet.cpu_seconds() - begin)))
        begin = fleet.cpu_seconds()
        requests, seconds, _ = asyncio.run(serving.load(fleet, texts, serving.ROUND_SECONDS))
        by_rest.append(_Round(requests / seconds, requests / (fleet.cpu_seconds() - begin)))
    section = f"by Kafka, {REQUESTS} requests waiting, embedded broker"
    middle = statistics.median
    ratio = middle(a.per_second / b.per_second for a, b in zip(by_kafka, by_rest, strict=True))
    return [
        Figure(section, "by Kafka", middle(one.per_second for one in by_kafka), "req/s"),
        Figure(section, "the same texts over REST, 16 clients", middle(one.per_second for one in by_rest), "req/s"),
        Figure(section, "Kafka over REST", ratio, "x", remark=f"median of {ROUNDS} rounds' ratios, in turn"),
        Figure(section, "by Kafka, all processes", middle(one.per_cpu_second for one in by_kafka), "req/CPU-s"),
        Figure(section, "over REST, all processes", middle(one.per_cpu_second for one in by_rest), "req/CPU-s"),
    ]


async def _by_kafka(bootstrap: str, texts: list[str], name: str, requests: int) -> None:
    """Returns once every request has its answer. Raises TimeoutError, and RuntimeError for a failure."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=20)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await consumer.start()
    await producer.start()
    try:
        await consumer._client.add_topic(COMPLETED)
        await consumer._client.force_metadata_update()
        partitions = [TopicPartition(COMPLETED, number) for number in consumer.partitions_for_topic(COMPLETED) or ()]
        consumer.assign(partitions)
        for partition, end in (await consumer.end_offsets(partitions)).items():
            consumer.seek(partition, end)
        for number in range(requests):
            body = {"deployment": serving.MODEL, "texts": [texts[number % len(texts)]]}
            key = f"{name}-{number}".encode()
            await producer.send("inference.requested", json.dumps(body).encode(), key=key)
        await producer.flush()
        left = {f"{name}-{number}".encode() for number in range(requests)}
        async with asyncio.timeout(LIMIT_SECONDS):
            while left:
                for records in (await consumer.getmany(timeout_ms=50)).values():
                    for record in records:
                        if json.loads(record.value)["failure"]:
                            raise RuntimeError(record.value.decode())
                        left.discard(record.key)
    finally:
        await producer.stop()
        await consumer.stop()
