"""Sending: one idempotent producer, rebuilt when it breaks."""

import asyncio
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from services.contracts.errors import TooLarge, Unavailable
from services.kit.messaging.envelope import MAX_EVENT_BYTES, Message

SEND_SECONDS: Final = 10.0


class BrokerDown(Unavailable):
    """The broker does not answer."""

    hint = "see the runbook 'OutboxStuck' when this lasts"


class EventProducer:
    """Sends messages with `acks=all` and an idempotent producer; order holds per key."""

    def __init__(self, bootstrap_servers: str, client: str, *, send_seconds: float = SEND_SECONDS) -> None:
        self._send_seconds = send_seconds
        self._servers = bootstrap_servers
        self._client = client
        self._producer: AIOKafkaProducer | None = None
        self._building = asyncio.Lock()

    async def send(self, messages: list[Message]) -> None:
        """Returns once the broker has all of them. Raises BrokerDown, TooLarge."""
        for message in messages:
            check_size(message)
        producer = await self._connected()
        try:
            async with asyncio.timeout(self._send_seconds):
                waiting = [
                    await producer.send(
                        message.topic,
                        value=message.value,
                        key=message.key,
                        headers=[(name, value.encode()) for name, value in message.headers],
                    )
                    for message in messages
                ]
                await asyncio.gather(*waiting)
        except MessageSizeTooLargeError as error:  # key and headers count as well; the producer is sound
            raise _too_large(messages[0].topic) from error
        except (KafkaError, TimeoutError, OSError) as error:
            await self._discard(producer)
            raise BrokerDown from error

    async def close(self) -> None:
        if self._producer is not None:
            await self._discard(self._producer)

    async def _connected(self) -> AIOKafkaProducer:
        async with self._building:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._servers,
                    client_id=self._client,
                    acks="all",
                    enable_idempotence=True,
                    request_timeout_ms=int(self._send_seconds * 1000),
                    max_request_size=MAX_EVENT_BYTES + 100_000,
                )
                try:
                    async with asyncio.timeout(self._send_seconds):
                        await producer.start()
                except (KafkaError, TimeoutError, OSError) as error:
                    await _stop(producer)
                    raise BrokerDown from error
                self._producer = producer
            return self._producer

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        """After some errors a producer stays dead (aiokafka #1017), so a broken one is never used again."""
        if self._producer is producer:
            self._producer = None
        await _stop(producer)


def check_size(message: Message) -> None:
    """Raises TooLarge."""
    if len(message.value or b"") > MAX_EVENT_BYTES:
        raise _too_large(message.topic)


def _too_large(topic: str) -> TooLarge:
    return TooLarge(what=f"the event for {topic}", limit=f"{MAX_EVENT_BYTES} bytes")


async def _stop(producer: AIOKafkaProducer) -> None:
    """Ends the producer; one whose broker is gone is left after two seconds."""
    try:
        async with asyncio.timeout(2.0):
            await producer.stop()
    except (KafkaError, TimeoutError, OSError):
        return
