"""FastStream: a subscriber in a group of its own, with a model of the fields that it needs."""

import asyncio
import secrets
from importlib.metadata import version

from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from pydantic import BaseModel
from shared.listening import BROKER, report

CLIENT, VERSION = "FastStream", version("faststream")
LIMIT_SECONDS = 60


class Trained(BaseModel):
    """What this consumer wants to know; it ignores every other field, those to come as well."""

    model: str
    run: str
    metrics: dict


async def first_model():
    events = asyncio.Queue()
    broker = KafkaBroker(BROKER, logger=None)

    @broker.subscriber(
        "model.trained",
        group_id=f"dashboard-{secrets.token_hex(4)}",
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def on_trained(event: Trained):
        await events.put(event)

    async with broker:
        await broker.start()
        return await asyncio.wait_for(events.get(), LIMIT_SECONDS)


event = asyncio.run(first_model())
assert event.run, event
assert event.metrics["slices"], event
report(CLIENT, VERSION, "model.trained, a subscriber with a model of its own")
