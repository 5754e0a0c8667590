"""Control events: FastStream subscribers, a group for each topic, one message at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.subscriber.usecase import LogicSubscriber

from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.messaging.consumer_loop import RETRY_SECONDS, Stops, cut_connections
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.lag import is_connected, observe_lag
from services.kit.messaging.middlewares import DeadLetterMiddleware, EnvelopeMiddleware

PROBE_INTERVAL_SECONDS: Final = 5.0

Subscribe = Callable[[KafkaBroker], None]
"""Registers a service's subscribers: a function `subscribe` in its `inbound/events.py`."""


def build_broker(
    subscribe: Subscribe, delivery: Delivery, clock: Clock, *, bootstrap_servers: str, service: str
) -> KafkaBroker:
    """A broker with the middlewares and the service's subscribers; it is not connected.

    It only consumes: dead letters are sent by the service's own producer. A message is acknowledged after its
    subscriber has returned or its dead letter was sent. Subscribers are called with the decoded envelope alone, without
    injection of dependencies, which would validate the event a second time.
    """
    broker = KafkaBroker(
        bootstrap_servers,
        client_id=f"millrace-{service}",
        consumer_only=True,
        ack_policy=AckPolicy.NACK_ON_ERROR,
        middlewares=[
            partial(DeadLetterMiddleware, delivery=delivery, clock=clock),
            partial(EnvelopeMiddleware, clock=clock),
        ],
        parser=_without_headers,
        apply_types=False,
        allow_auto_create_topics=False,
        logger=None,
    )
    subscribe(broker)
    return broker


def kafka_subscribers(broker: KafkaBroker) -> list[LogicSubscriber[Any]]:
    """The subscribers by the type that has a consumer of Kafka; the broker's list is of any kind."""
    return [subscriber for subscriber in broker.subscribers if isinstance(subscriber, LogicSubscriber)]


async def _without_headers(record: Any, parse: Callable[[Any], Awaitable[KafkaMessage]]) -> KafkaMessage:
    """FastStream never sees the headers: on one that is not text it drops the message, and `reply_to` it obeys."""
    parsed = await parse(replace(record, headers=()))
    parsed.raw_message = record
    return parsed


class EventConsumer:
    """Runs a service's subscribers, over brokers that are built anew after a failure; a part of the service."""

    def __init__(
        self, subscribe: Subscribe, delivery: Delivery, clock: Clock, *, bootstrap_servers: str, service: str
    ) -> None:
        self._build = partial(
            build_broker, subscribe, delivery, clock, bootstrap_servers=bootstrap_servers, service=service
        )
        self._clock = clock
        self._stops = Stops()
        self.connected = asyncio.Event()
        """Follows the connection to the broker, some seconds late."""

    async def run(self) -> None:
        try:
            while True:
                await self._run_one(self._build())
                await self._clock.sleep(RETRY_SECONDS)
        finally:
            await self._stops.cancel()

    async def _run_one(self, broker: KafkaBroker) -> None:
        try:
            await broker.start()
            while True:
                await self._observe([subscriber.consumer for subscriber in kafka_subscribers(broker)])
                await self._clock.sleep(PROBE_INTERVAL_SECONDS)
        except (KafkaError, OSError) as error:
            logger.warning("no broker yet: %s", error)
        finally:
            self.connected.clear()
            consumers = [part.consumer for part in kafka_subscribers(broker) if part.consumer is not None]
            await self._stops.stop(broker.stop, partial(cut_connections, *consumers))

    async def _observe(self, consumers: list[Any]) -> None:
        if not all(await asyncio.gather(*map(is_connected, consumers))):
            self.connected.clear()
            return
        self.connected.set()
        await asyncio.gather(*map(observe_lag, consumers))
