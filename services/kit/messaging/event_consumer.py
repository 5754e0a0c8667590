"""Control events: a FastStream subscriber for all the topics of a service, one message at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from services.kit.clock import Clock
from services.kit.log import logger
from services.kit.messaging.consumer_loop import RETRY_SECONDS, SESSION_TIMEOUT_MS, Stops
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.lag import is_connected, observe_lag
from services.kit.messaging.records import to_message

PROBE_INTERVAL_SECONDS: Final = 5.0


class EventConsumer:
    """Consumes the topics of a `Delivery` in one group named after the service; a part of a service.

    Offsets are committed after a message was handled (ack on success); a message whose dead letter
    cannot be sent is not acknowledged and comes again.
    """

    def __init__(self, delivery: Delivery, bootstrap_servers: str, service: str, clock: Clock) -> None:
        self._delivery = delivery
        self._servers = bootstrap_servers
        self._service = service
        self._clock = clock
        self._stops = Stops()
        self.connected = asyncio.Event()
        """Follows the connection to the broker, some seconds late."""

    async def run(self) -> None:
        try:
            while True:
                await self._run_one()
                await self._clock.sleep(RETRY_SECONDS)
        finally:
            await self._stops.cancel()

    async def _run_one(self) -> None:
        broker = KafkaBroker(
            self._servers, client_id=f"millrace-{self._service}", logger=None, allow_auto_create_topics=False
        )
        subscriber = broker.subscriber(
            *self._delivery.topics,
            group_id=f"millrace.{self._service}",
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
            parser=_unparsed,
            decoder=_undecoded,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=3_000,
        )
        subscriber(self._handle)
        try:
            await broker.start()
            while True:
                await self._observe(subscriber.consumer)
                await self._clock.sleep(PROBE_INTERVAL_SECONDS)
        except (KafkaError, OSError) as error:
            logger.warning("no broker yet: %s", error)
        finally:
            self.connected.clear()
            await self._stops.stop(broker.stop)

    async def _observe(self, consumer: Any) -> None:
        if await is_connected(consumer):
            self.connected.set()
            await observe_lag(consumer)
        else:
            self.connected.clear()

    async def _handle(self, body: Any, message: KafkaMessage) -> None:
        try:
            await self._delivery.deliver(to_message(message.raw_message))
        except Exception:
            await self._clock.sleep(RETRY_SECONDS)  # a nack seeks back at once: without a pause it spins
            raise


async def _unparsed(record: Any, parse: Callable[[Any], Awaitable[KafkaMessage]]) -> KafkaMessage:
    """FastStream never sees the headers: on one that is not text it drops the message, and `reply_to` it obeys."""
    parsed = await parse(replace(record, headers=()))
    parsed.raw_message = record
    return parsed


async def _undecoded(message: Any) -> Any:
    """The delivery decodes, so that a malformed message reaches the dead letters."""
    return message.body
