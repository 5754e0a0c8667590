"""The life of a service: parts open in order, run until a signal, and close in reverse, each within a limit."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop

from services.contracts.errors import Refusal
from services.kit.core import log, telemetry
from services.kit.core.clock import SystemClock
from services.kit.core.ids import SystemIds
from services.kit.core.log import logger
from services.kit.core.settings import ServiceSettings
from services.kit.identity.auth import Keyring, ensure_keys, read_key
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.producer import EventProducer
from services.kit.persistence.sql.cleanup import Cleanup
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.relay import Relay
from services.kit.storage.artifacts import ArtifactStore
from services.kit.transport.http import App, HttpServer, Operations
from services.kit.transport.rpc import MAX_MESSAGE_BYTES, Gate, RpcServer

if TYPE_CHECKING:
    from services.kit.messaging.event_consumer import Subscribe

CLOSE_SECONDS: Final = 12.0
OPEN_TRIES_SECONDS: Final = 1.0


@dataclass(frozen=True)
class _Part:
    name: str
    open: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


class Service:
    """What a room's `app.py` wires: the common parts are made here, its own are added in the order they open."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.name = settings.service
        self.clock = SystemClock()
        self.ids = SystemIds()
        ensure_keys(settings.keys_folder)
        self.keyring = Keyring(settings.keys_folder, self.clock)
        self.service_key = read_key(settings.keys_folder)
        self.artifacts = ArtifactStore(settings.artifact_root(), settings.keys_folder)
        self.writer = EventProducer(settings.kafka_bootstrap_servers, f"millrace-{self.name}")
        self.checks: dict[str, Callable[[], bool]] = {"started": lambda: self._started}
        self._started = False
        self._parts: list[_Part] = []
        self._failed = asyncio.Event()
        self.part("event producer", close=self.writer.close)

    def part(
        self,
        name: str,
        *,
        open: Callable[[], Awaitable[None]] | None = None,  # noqa: A002 - the pair's natural name
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Something that is opened and closed."""
        self._parts.append(_Part(name, open or _nothing, close or _nothing))

    def runs(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Something that runs until it is cancelled. If it ends by itself, the service stops with exit code 1."""
        task: asyncio.Task[None] | None = None

        async def begin() -> None:
            nonlocal task
            task = asyncio.create_task(run(), name=name)
            task.add_done_callback(self._ended)

        async def end() -> None:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        self.part(name, open=begin, close=end)

    def database(self, database: Database) -> None:
        """Opens the database, waiting for it as long as it takes, and relays its outbox."""

        async def open_when_there() -> None:
            while True:
                try:
                    await database.open()
                    return
                except Refusal as refusal:
                    logger.warning("waiting: %s", refusal)
                    await self.clock.sleep(OPEN_TRIES_SECONDS)

        self.part("database", open=open_when_there, close=database.close)
        self.runs("relay", Relay(database, self.writer, self.clock).run)
        self.runs("upkeep", Cleanup(database, self.clock).run)

    def delivery(self) -> Delivery:
        """The retry policy and the dead letters of its consumers."""
        return Delivery(self.writer, self.clock, service=self.name)

    def subscribes(self, subscribe: "Subscribe") -> None:
        """Runs these subscribers of control events; ready only while connected to the broker."""
        from services.kit.messaging.event_consumer import EventConsumer  # FastStream: 9 MB that the others are spared

        consumer = EventConsumer(
            subscribe,
            self.delivery(),
            self.clock,
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            service=self.name,
        )
        self.checks["broker"] = consumer.connected.is_set
        self.runs("event consumer", consumer.run)

    def grpc(
        self, *, gate: Gate | None = None, receive_bytes: int = MAX_MESSAGE_BYTES, services_only: bool = False
    ) -> RpcServer:
        """The service's gRPC server; add servicers to it before the service runs."""
        server = RpcServer(
            self.keyring,
            self.settings.host,
            self.settings.grpc_port,
            gate=gate,
            receive_bytes=receive_bytes,
            services_only=services_only,
        )
        self.part("gRPC", open=server.open, close=server.close)
        return server

    def http(self, app: App | None = None) -> HttpServer:
        """Health, readiness and metrics, and the room's own app inside."""
        server = HttpServer(Operations(self.keyring, self.checks, app), self.settings.host, self.settings.http_port)
        self.part("HTTP", open=server.open, close=server.close)
        return server

    async def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        opened: list[_Part] = []
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._failed.wait())]
        opening = asyncio.create_task(self._open_parts(opened))
        try:
            await asyncio.wait([opening, *waits], return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._started = False
            for task in (opening, *waits):
                task.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            for part in reversed(opened):
                await _close(part)
        logger.info("%s has stopped", self.name)
        return 1 if self._failed.is_set() else 0

    async def _open_parts(self, opened: list[_Part]) -> None:
        """In order; a signal may break it off, for instance while the database is away."""
        for part in self._parts:
            await part.open()
            opened.append(part)
        self._started = True
        logger.info("%s has started", self.name)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        logger.error("%s ended", task.get_name(), exc_info=task.exception())
        self._failed.set()


async def _nothing() -> None:
    return


async def _close(part: _Part) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await part.close()
    except Exception:  # noqa: BLE001 - the other parts must be closed all the same
        logger.exception("%s did not close", part.name)


def main(settings: type[ServiceSettings], build: Callable[[Any], Service]) -> int:
    """What every room's `__main__` calls: settings, telemetry, run."""
    name = settings.service
    log.start(name)
    try:
        loaded = settings.load()
    except Refusal as refusal:
        print(f"millrace {name}: {refusal} {refusal.advice or ''}", file=sys.stderr)
        return 2
    sending = telemetry.start(name, loaded.traces_folder)

    async def live() -> int:
        return await build(loaded).run()

    try:
        return uvloop.run(live())
    finally:
        sending.shutdown()
