"""How far a consumer is behind, and whether it has a broker at all."""

import asyncio
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.kit.core import telemetry

PROBE_SECONDS: Final = 3.0
POSITION_SECONDS: Final = 0.2


async def is_connected(consumer: AIOKafkaConsumer | None) -> bool:
    """Whether a broker answers the consumer: one request for metadata."""
    if consumer is None:
        return False
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await consumer.topics()
    except (KafkaError, TimeoutError, OSError):
        return False
    return True


async def observe_lag(consumer: AIOKafkaConsumer | None) -> None:
    """Sets the lag of each partition whose position and end are known; both come with fetched records."""
    if consumer is None:
        return
    for partition in consumer.assignment():
        end = consumer.highwater(partition)
        if end is None:
            continue
        try:
            async with asyncio.timeout(POSITION_SECONDS):
                set_lag(partition, end - await consumer.position(partition))
        except (KafkaError, TimeoutError):
            continue  # revoked, or not positioned yet


def set_lag(partition: TopicPartition, records: int) -> None:
    telemetry.CONSUMER_LAG.set(max(0, records), topic=partition.topic, partition=partition.partition)
