"""FastStream: a publisher that sends plain JSON, and one that sends CloudEvents in binary mode."""

import asyncio
from importlib.metadata import version

from faststream.kafka import KafkaBroker
from shared.announcing import BROKER, TOPIC, cloud_event_headers, prove

CLIENT, VERSION = "FastStream", version("faststream")


def sent(key, body, headers):
    """A loop each: what is proved around it is not asynchronous."""

    async def send():
        async with KafkaBroker(BROKER, acks="all", enable_idempotence=True, logger=None) as broker:
            await broker.publish(body, TOPIC, key=key.encode(), headers=headers)

    asyncio.run(send())


def plain(key, body, _, trace):
    sent(key, body, {"traceparent": trace})


def binary(key, body, event_id, trace):
    sent(key, body, cloud_event_headers(key, event_id, trace))


prove(CLIENT, VERSION, "plain JSON", plain)
prove(CLIENT, VERSION, "CloudEvents binary", binary)
