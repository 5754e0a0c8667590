"""The life of a service: parts open in order, run until a signal, and close in reverse, each within a limit."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import uvloop

from services.contracts.errors import MillraceError
from services.kit.core import log, telemetry
from services.kit.core.clock import Clock, SystemClock
from services.kit.core.ids import Ids, SystemIds
from services.kit.core.log import logger
from services.kit.core.settings import BadSettings, ServiceSettings
from services.kit.identity.auth import Keyring, ensure_keys, read_key
from services.kit.jobs.timers import DueTimers, Handle, TimerLoop
from services.kit.jobs.worker import JobStore, Worker
from services.kit.messaging.batch_consumer import BatchConsumer, BatchHandler
from services.kit.messaging.compacted_topic_reader import CompactedTopicReader, Handler
from services.kit.messaging.concurrent_consumer import ConcurrentConsumer
from services.kit.messaging.concurrent_consumer import Handle as ConcurrentHandle
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Message
from services.kit.messaging.ports import Broker, Group, MessageConsumer, Sender
from services.kit.messaging.producer import EventProducer
from services.kit.persistence.sql.cleanup import Cleanup
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.relay import Relay
from services.kit.persistence.unit_of_work import Job
from services.kit.storage.artifacts import ArtifactStore
from services.kit.transport.http import App, HttpServer, Operations, PortTaken
from services.kit.transport.rpc import MAX_MESSAGE_BYTES, Gate, RpcServer

if TYPE_CHECKING:
    from services.kit.messaging.event_consumer import Subscribe

CLOSE_SECONDS: Final = 12.0
OPEN_TRIES_SECONDS: Final = 1.0

P = TypeVar("P")


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """What a service uses in place of what it would open by its settings; None opens the real part."""

    clock: Clock | None = None
    ids: Ids | None = None
    broker: Broker | None = None
    database: Database | None = None
    artifacts: ArtifactStore | None = None
    servers: "Servers | None" = None


NOTHING_REPLACED: Final = Adapters()


class Servers:
    """Listens for a service's callers; a test may give one that does not."""

    def grpc(self, keyring: Keyring, host: str, port: int, **options: Any) -> RpcServer:
        return RpcServer(keyring, host, port, **options)

    def http(self, app: App, host: str, port: int) -> HttpServer:
        return HttpServer(app, host, port)


@dataclass(frozen=True)
class _Part:
    name: str
    open: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


class Service(Generic[P]):
    """What a room's `app.py` wires: the common parts are made here, its own are added in the order they open."""

    ports: P
    """What its handlers use; set by its `app.py`."""

    def __init__(self, settings: ServiceSettings, adapters: Adapters = NOTHING_REPLACED) -> None:
        self.settings = settings
        self.name = settings.service
        self.clock: Clock = adapters.clock or SystemClock()
        self.ids: Ids = adapters.ids or SystemIds()
        ensure_keys(settings.keys_folder)
        self.keyring = Keyring(settings.keys_folder, self.clock)
        self.service_key = read_key(settings.keys_folder)
        self.artifacts = adapters.artifacts or ArtifactStore(settings.artifact_root(), settings.keys_folder)
        self.checks: dict[str, Callable[[], bool]] = {"started": lambda: self._started}
        self.groups: list[Group] = []
        """Its consumers on a broker that is given; on Kafka they are parts that run."""
        self.workers: list[Worker] = []
        self.relay: Relay | None = None
        self.timer_loop: TimerLoop | None = None
        self._broker = adapters.broker
        self._database = adapters.database
        self._servers = adapters.servers or Servers()
        self._started = False
        self._parts: list[_Part] = []
        self._failed = asyncio.Event()
        self.sender = self._sender(settings)

    def _sender(self, settings: ServiceSettings) -> Sender:
        if self._broker is not None:
            return self._broker
        producer = EventProducer(settings.kafka_bootstrap_servers, f"millrace-{self.name}")
        self.part("event producer", close=producer.close)
        return producer

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

    def database(self, migrations: Path) -> Database:
        """Its database, which is waited for as long as it takes; what its outbox holds is relayed."""
        database = self._database or Database(self.settings.sql_url(), migrations)

        async def open_when_there() -> None:
            while True:
                try:
                    await database.open()
                    return
                except MillraceError as error:
                    logger.warning("waiting: %s", error)
                    await self.clock.sleep(OPEN_TRIES_SECONDS)

        self.part("database", open=open_when_there, close=database.close)
        self.relay = Relay(database, self.sender, self.clock)
        self.runs("relay", self.relay.run)
        self.runs("upkeep", Cleanup(database, self.clock).run)
        return database

    def timers(self, store: DueTimers, handlers: Mapping[str, Handle]) -> None:
        """Hands due timers to the handlers of their kinds."""
        self.timer_loop = TimerLoop(store, handlers, self.clock)
        self.runs("timers", self.timer_loop.run)

    def works(
        self, name: str, store: JobStore, work: Callable[[Job], Awaitable[None]], *, kind: str, lease_seconds: float
    ) -> Worker:
        """Runs a worker that leases the jobs of a kind."""
        owner = self.ids.new("worker")
        worker = Worker(store, work, kind=kind, owner=owner, lease_seconds=lease_seconds, clock=self.clock)
        self.workers.append(worker)
        self.runs(name, worker.run)
        return worker

    def wake_workers(self) -> None:
        """A job was queued: they look for it at once."""
        for worker in self.workers:
            worker.wake.set()

    def delivery(self) -> Delivery:
        """The retry policy and the dead letters of its consumers."""
        return Delivery(self.sender, self.clock, service=self.name)

    # --- consumers

    def subscribes(self, subscribe: "Subscribe") -> None:
        """Runs these subscribers of control events; ready only while connected to the broker."""
        # FastStream: 9 MB that the others are spared.
        if self._broker is not None:
            from services.kit.messaging.in_memory import InMemorySubscribers

            group = InMemorySubscribers(subscribe, self.delivery(), self.clock)
            self.part("event consumer", open=group.open, close=group.close)
            self._join(group)
            return
        from services.kit.messaging.event_consumer import EventConsumer

        consumer = EventConsumer(
            subscribe,
            self.delivery(),
            self.clock,
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            service=self.name,
        )
        self.checks["broker"] = consumer.connected.is_set
        self.runs("event consumer", consumer.run)

    def consumes_batches(self, handlers: Mapping[type[Any], BatchHandler]) -> None:
        """Runs a consumer for each of these topics of volume, which are read and committed in batches."""
        for event, handle in handlers.items():
            consumer = BatchConsumer(
                event,
                handle,
                bootstrap_servers=self.settings.kafka_bootstrap_servers,
                service=self.name,
                delivery=self.delivery(),
                clock=self.clock,
            )
            if self._broker is None:
                self.runs(event.topic, consumer.run)
            else:
                self._join(MessageConsumer([event.topic], partial(_deliver_one, consumer)))

    def consumes_concurrently(
        self, handlers: Mapping[type[Any], ConcurrentHandle], *, limit: int, limit_bytes: int
    ) -> None:
        """Runs a consumer for each of these topics of requests, which are answered side by side."""
        for event, handle in handlers.items():
            if self._broker is not None:
                self._join(MessageConsumer([event.topic], partial(_handle_one, self.delivery(), handle)))
                continue
            consumer = ConcurrentConsumer(
                event,
                handle,
                bootstrap_servers=self.settings.kafka_bootstrap_servers,
                service=self.name,
                delivery=self.delivery(),
                clock=self.clock,
                limit=limit,
                limit_bytes=limit_bytes,
            )
            self.runs(event.topic, consumer.run)

    def follows(self, name: str, handlers: dict[type[Any], Handler], *, client: str) -> asyncio.Event:
        """Runs a reader of compacted topics from their beginning; the event is set once it has caught up."""
        reader = CompactedTopicReader(
            handlers, bootstrap_servers=self.settings.kafka_bootstrap_servers, client=client, clock=self.clock
        )
        if self._broker is None:
            self.runs(name, reader.run)
        else:
            reader.caught_up.set()
            self._join(MessageConsumer(reader.topics, reader.on_message))
        return reader.caught_up

    def _join(self, group: Group) -> None:
        self.groups.append(group)
        if self._broker is not None:
            self._broker.join([group])

    # --- servers

    def grpc(
        self, *, gate: Gate | None = None, receive_bytes: int = MAX_MESSAGE_BYTES, services_only: bool = False
    ) -> RpcServer:
        """The service's gRPC server; add servicers to it before the service runs."""
        server = self._servers.grpc(
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
        operations = Operations(self.keyring, self.checks, app)
        server = self._servers.http(operations, self.settings.host, self.settings.http_port)
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


async def _deliver_one(consumer: BatchConsumer, message: Message) -> None:
    await consumer.deliver([message])


async def _handle_one(delivery: Delivery, handle: ConcurrentHandle, message: Message) -> None:
    if (envelope := await delivery.decode(message)) is not None:
        await delivery.attempt([message], lambda: handle(envelope))


async def _nothing() -> None:
    return


async def _close(part: _Part) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await part.close()
    except Exception:  # noqa: BLE001 - the other parts must be closed all the same
        logger.exception("%s did not close", part.name)


def main(settings: type[ServiceSettings], build: Callable[[Any], Service[Any]]) -> int:
    """What every room's `__main__` calls: settings, telemetry, run."""
    name = settings.service
    log.start(name)
    try:
        loaded = settings.load()
    except MillraceError as error:
        return _refused(name, error)
    sending = telemetry.start(name, loaded.traces_folder)

    async def live() -> int:
        return await build(loaded).run()

    try:
        return uvloop.run(live())
    except (BadSettings, PortTaken) as error:  # settings that contradict each other meet where the service is built
        return _refused(name, error)
    finally:
        sending.shutdown()


def _refused(name: str, error: MillraceError) -> int:
    """Says so; the exit code of a service that cannot start as it is set up."""
    print(f"millrace {name}: {error} {error.hint or ''}", file=sys.stderr)
    return 2
