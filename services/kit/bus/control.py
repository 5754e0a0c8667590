"""Control events: a FastStream subscriber for all the topics of a service, one message at a time."""

import asyncio
from typing import Any, Final

from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from services.kit.bus.delivery import Delivery
from services.kit.bus.lag import has_connection, observe_lag
from services.kit.clock import Clock
from services.kit.envelope import Message
from services.kit.log import logger

RETRY_SECONDS: Final = 2.0
LAG_SECONDS: Final = 5.0
STOP_SECONDS: Final = 3.0


def to_message(record: Any) -> Message:
    """From an aiokafka record; header bytes that are not UTF-8 are replaced, not refused, a null is nothing."""
    headers = tuple((name, (value or b"").decode("utf-8", "replace")) for name, value in record.headers or ())
    return Message(topic=record.topic, key=record.key, value=record.value, headers=headers)


class ControlBus:
    """Consumes the topics of a `Delivery` in one group named after the service; a part of a service.

    Offsets are committed after a message was handled (ack on success); a message whose dead letter
    cannot be sent is not acknowledged and comes again.
    """

    def __init__(self, delivery: Delivery, bootstrap_servers: str, service: str, clock: Clock) -> None:
        self._delivery = delivery
        self._servers = bootstrap_servers
        self._service = service
        self._clock = clock
        self.connected = asyncio.Event()
        """Follows the connection to the broker, some seconds late."""

    async def run(self) -> None:
        while True:
            broker = KafkaBroker(self._servers, client_id=f"millrace-{self._service}", logger=None)
            subscriber = broker.subscriber(
                *self._delivery.topics,
                group_id=f"millrace.{self._service}",
                auto_offset_reset="earliest",
                ack_policy=AckPolicy.NACK_ON_ERROR,
                decoder=_undecoded,
                session_timeout_ms=10_000,
                heartbeat_interval_ms=3_000,
            )
            subscriber(self._handle)
            try:
                await broker.start()
                while True:
                    self._observe(getattr(subscriber, "consumer", None))
                    await self._clock.sleep(LAG_SECONDS)
            except (KafkaError, OSError) as error:
                logger.warning("no broker yet: %s", error)
            finally:
                self.connected.clear()
                await _stop(broker)
            await self._clock.sleep(RETRY_SECONDS)

    def _observe(self, consumer: Any) -> None:
        if has_connection(consumer):
            self.connected.set()
        else:
            self.connected.clear()
        observe_lag(consumer)

    async def _handle(self, body: Any, message: KafkaMessage) -> None:
        try:
            await self._delivery.deliver(to_message(message.raw_message))
        except Exception:
            await self._clock.sleep(RETRY_SECONDS)  # a nack seeks back at once: without a pause it spins
            raise


async def _undecoded(message: Any) -> Any:
    """The delivery decodes, so that a malformed message reaches the dead letters."""
    return message.body


async def _stop(broker: KafkaBroker) -> None:
    """Leaves the group; a broker that is gone is not waited for (that took half a minute)."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await broker.stop()
    except (KafkaError, TimeoutError, OSError):
        return
