"""The loop of every aiokafka consumer: connect, consume, stop, and begin again after a pause."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from services.contracts.errors import MillraceError
from services.contracts.events import Event
from services.kit.core.clock import Clock
from services.kit.core.log import logger

RETRY_SECONDS: Final = 2.0
STOP_SECONDS: Final = 3.0
SESSION_TIMEOUT_MS: Final = 10_000
POLL_MS: Final = 500
MAX_RECORDS: Final = 200


class Strategy(Protocol):
    """How records are consumed; the loop does the rest."""

    async def consume(self, consumer: AIOKafkaConsumer) -> None:
        """Until it is cancelled or raises; the consumer has been started."""
        ...

    async def release(self) -> None:
        """Called before the consumer stops: what is in progress ends, and offsets are committed."""
        ...


class ConsumerLoop:
    """Runs one strategy over consumers that it builds, each until it breaks; a part of a service."""

    def __init__(self, name: str, build: Callable[[], AIOKafkaConsumer], clock: Clock) -> None:
        self._name = name
        self._build = build
        self._clock = clock
        self._stops = Stops()

    async def run(self, strategy: Strategy) -> None:
        try:
            while True:
                await self._run_one(strategy)
                await self._clock.sleep(RETRY_SECONDS)
        finally:
            await self._stops.cancel()

    async def _run_one(self, strategy: Strategy) -> None:
        consumer = self._build()
        try:
            await consumer.start()
            await strategy.consume(consumer)
        except (KafkaError, OSError, MillraceError) as error:
            logger.warning("consuming %s begins again: %s", self._name, error)
        finally:
            await strategy.release()
            await self._stops.stop(consumer.stop, partial(cut_connections, consumer))


Disconnect = Callable[[], Awaitable[None]]


class Stops:
    """Stops clients within a limit. One whose broker does not answer goes on stopping beside its successor."""

    def __init__(self, limit_seconds: float = STOP_SECONDS) -> None:
        self._limit_seconds = limit_seconds
        self._cuts: dict[asyncio.Task[None], Disconnect] = {}

    async def stop(self, stop: Callable[[], Awaitable[Any]], disconnect: Disconnect) -> None:
        """`cut` closes the client's connections when it has to be given up."""
        task = asyncio.create_task(_quietly(stop))
        self._cuts[task] = disconnect
        task.add_done_callback(self._ended)
        await asyncio.wait([task], timeout=self._limit_seconds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._cuts.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a client stopped with an error", exc_info=error)

    async def cancel(self) -> None:
        """Gives up on those that still stop, and closes their connections: half stopped they would stay open."""
        disconnects = dict(self._cuts)
        for task in disconnects:
            task.cancel()
        await asyncio.gather(*disconnects, return_exceptions=True)
        for task, disconnect in disconnects.items():
            if task.cancelled():
                await _quietly(disconnect)


async def cut_connections(*consumers: AIOKafkaConsumer) -> None:
    """Closes the connections of consumers whose `stop` was cancelled.

    aiokafka has no public way: `stop` waits for a group that is still being joined, and a second call does nothing.
    """
    await asyncio.gather(*(_quietly(consumer._client.close) for consumer in consumers))


async def _quietly(stop: Callable[[], Awaitable[Any]]) -> None:
    """FastStream raises a group: one error for each subscriber that did not stop."""
    try:
        await stop()
    except* (KafkaError, OSError) as errors:
        for error in errors.exceptions:
            logger.warning("a client did not leave its broker: %s", error)


def group_consumer(
    event: type[Event], *, bootstrap_servers: str, service: str, listener: ConsumerRebalanceListener | None = None
) -> AIOKafkaConsumer:
    """A consumer of one topic, in a group of the service's own for it; offsets are committed by the strategy."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        client_id=f"millrace-{service}-{event.topic}",
        group_id=f"millrace.{service}.{event.topic}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_TIMEOUT_MS,
    )
    consumer.subscribe([event.topic], listener=listener)
    return consumer
