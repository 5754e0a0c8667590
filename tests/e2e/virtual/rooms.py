"""The five rooms, wired as their `app.py` wires them, on the house's ground instead of broker, wire and machine."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlmodel.ext.asyncio.session import AsyncSession

from services.contracts.events import Event, ReplicaReported
from services.gateway import ports as gateway
from services.gateway.domain.routing import RoutingTable
from services.gateway.inbound.events import compacted_topics as gateway_topics
from services.gateway.outbound.inputs import RootedFiles
from services.gateway.outbound.results import StoredResults
from services.gateway.outbound.store import MIGRATIONS as GATEWAY_MIGRATIONS
from services.gateway.outbound.store import store as gateway_store
from services.inference import ports as inference
from services.inference.domain.records import Sampling
from services.inference.domain.roster import Roster
from services.inference.handlers import restore
from services.inference.inbound.events import compacted_topics as inference_topics
from services.inference.outbound.crew import TaskCrew
from services.inference.outbound.logs import Logging, LogWriter
from services.inference.outbound.reporter import ReplicaReporter, Reporting
from services.kit.core.tabular import RowLimits
from services.kit.jobs.timers import TimerLoop
from services.kit.jobs.worker import Worker
from services.kit.messaging.batch_consumer import BatchConsumer, BatchHandler
from services.kit.messaging.compacted_topic_reader import CompactedTopicReader, Handler
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.event_consumer import Subscribe
from services.kit.messaging.in_memory import Group, InMemoryConsumer, InMemorySubscribers
from services.kit.persistence.sql.relay import Relay
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.unit_of_work import Job
from services.kit.storage.uploads import UploadStore
from services.monitor import ports as monitor
from services.monitor.handlers.upkeep import begin_upkeep
from services.monitor.inbound import events as monitor_events
from services.monitor.outbound.baselines import StoredBaselines
from services.monitor.outbound.store import MIGRATIONS as MONITOR_MIGRATIONS
from services.monitor.outbound.store import MonitorTx
from services.monitor.settings import MonitorSettings
from services.registry import handlers as registry_handlers
from services.registry import ports as registry
from services.registry.app import MIGRATIONS as REGISTRY_MIGRATIONS
from services.registry.inbound import events as registry_events
from services.registry.outbound.store import RegistryTx
from services.registry.settings import RegistrySettings
from services.trainer import ports as trainer
from services.trainer.app import MIGRATIONS as TRAINER_MIGRATIONS
from services.trainer.domain.spec import ExecutionPolicy
from services.trainer.handlers import running
from services.trainer.inbound import events as trainer_events
from services.trainer.outbound.store import TrainerTx
from services.trainer.settings import TrainerSettings
from tests.e2e.virtual.engines import AcceptingChecker, StandInEngines
from tests.e2e.virtual.faults import FragileDatabase
from tests.e2e.virtual.ground import MONITOR, REGISTRY, REPLICA, TENANT, TRAINER, Ground
from tests.e2e.virtual.room import Room
from tests.e2e.virtual.serving import QueuedMirrors
from tests.e2e.virtual.shelf import FetchedArtifacts
from tests.e2e.virtual.training import STAGE_SECONDS, InlineInputs, RegistryAsked, StandInTraining
from tests.unit.gateway.fakes import FakeKeys

T = TypeVar("T")


async def inline(work: Callable[[], T], /) -> T:
    """`Offload` of the monitor: on the same thread, in order."""
    return work()


@dataclass
class Gateway:
    room: Room
    ports: gateway.Ports
    mirrors: QueuedMirrors


async def build_gateway(ground: Ground) -> Gateway:
    database = await ground.database("gateway", GATEWAY_MIGRATIONS)
    ids, mirrors = ground.ids("gateway"), QueuedMirrors(ground.replicas)
    uploads = UploadStore(f"file://{ground.data / 'uploads'}", ground.clock, ids)
    ports = gateway.Ports(
        store=gateway_store(database, ground.clock, ids),
        clock=ground.clock,
        ids=ids,
        routes=RoutingTable(stale_after_seconds=15.0),
        routes_read=lambda: True,
        replicas=ground.replicas,
        mirrors=mirrors,
        keys=FakeKeys(),
        generator=ground.generator,
        policy=gateway.Policy(),
        batching=_batching(ground, uploads),
        uploads=uploads,
    )
    room = Room(
        "gateway",
        [_compacted(gateway_topics(ports), ground)],
        database,
        Relay(database, ground.bus, ground.clock),
    )
    return Gateway(room, ports, mirrors)


def _batching(ground: Ground, uploads: UploadStore) -> gateway.Batching:
    """Real files; nobody works on them in this story."""
    inputs = RootedFiles([ground.data.resolve()], RowLimits(1_000_000, 1_000, 10_000), uploads)
    results = StoredResults(f"file://{ground.folder / 'results'}")
    return gateway.Batching(inputs, results, gateway.BatchPolicy(), wake=lambda: None)


@dataclass
class Registry:
    room: Room
    ports: registry.Ports
    store: SqlStore[RegistryTx]


async def build_registry(ground: Ground) -> Registry:
    database = await ground.database("registry", REGISTRY_MIGRATIONS)

    def begin(session: AsyncSession) -> RegistryTx:
        return RegistryTx(session, clock=ground.clock, ids=ground.ids("registry"), source="millrace/registry")

    store = SqlStore(database, begin)
    rules = RegistrySettings.model_validate(REGISTRY).rules()
    ports = registry.Ports(store=store, artifacts=ground.shelf, clock=ground.clock, rules=rules)
    room = _room("registry", ground, database, [_subscribers(partial(registry_events.subscribe, ports=ports), ground)])
    room.timers = TimerLoop(store, registry_events.timer_handlers(ports), ground.clock)
    room.opened = partial(registry_handlers.republish_all, ports)
    return Registry(room, ports, store)


@dataclass
class Trainer:
    room: Room
    ports: trainer.Ports
    worker: Worker


async def build_trainer(ground: Ground, registry_ports: Callable[[], registry.Ports]) -> Trainer:
    database = await ground.database("trainer", TRAINER_MIGRATIONS)
    ids, settings = ground.ids("trainer"), TrainerSettings.model_validate(TRAINER)

    def begin(session: AsyncSession) -> TrainerTx:
        return TrainerTx(session, clock=ground.clock, ids=ids, source="millrace/trainer")

    async def work(job: Job) -> None:
        await running.work_run(job, ports)

    store = SqlStore(database, begin)
    worker = Worker(
        store,
        work,
        kind=running.RUN_JOB,
        owner=ids.new("worker"),
        lease_seconds=settings.lease_seconds,
        clock=ground.clock,
    )
    ports = trainer.Ports(
        store=store,
        clock=ground.clock,
        ids=ids,
        champions=RegistryAsked(registry_ports, TENANT),
        executor=StandInTraining(ground.shelf, ground.clock, ground.executions),
        inputs=InlineInputs(ground.folder, [ground.data.resolve()]),
        retraining=settings.retraining(),
        wake=worker.wake.set,
        execution=ExecutionPolicy(poll_seconds=STAGE_SECONDS),
        code_version="virtual",
    )
    subscribers = _subscribers(partial(trainer_events.subscribe, ports=ports), ground)
    room = _room("trainer", ground, database, [subscribers, *_batches(trainer_events.batches(ports), ground)])
    room.timers = TimerLoop(store, trainer_events.timer_handlers(ports), ground.clock)
    return Trainer(room, ports, worker)


class WatchedLog(LogWriter):
    """The real log, and how much of it waits in memory."""

    @property
    def waiting(self) -> int:
        return len(self._buffer)


@dataclass
class Inference:
    room: Room
    ports: inference.Ports
    log: WatchedLog


def build_inference(ground: Ground) -> Inference:
    roster, engines, ids = Roster(), StandInEngines(), ground.ids("inference")
    crew, log, reporter = TaskCrew(), _log(ground), _reporter(ground, roster)
    ports = inference.Ports(
        roster=roster,
        engines=engines,
        artifacts=FetchedArtifacts(ground.shelf, ground.folder / "replica"),
        checker=AcceptingChecker(),
        remembered=ground.remembered,
        crew=crew,
        reporter=reporter,
        log=log,
        clock=ground.clock,
        ids=ids,
        bounds=inference.Bounds(drain_grace_seconds=2.0),
        observe=lambda tenant, deployment, version, outcome, seconds: None,
    )
    groups: list[Group] = [_compacted(inference_topics(ports), ground)]
    tasks: list[asyncio.Task[None]] = []

    async def opened() -> None:
        await restore(ports)
        tasks.extend([asyncio.create_task(reporter.run()), asyncio.create_task(log.run())])
        ground.replicas.doors[REPLICA] = ports

    async def closed() -> None:
        ground.replicas.doors.pop(REPLICA, None)
        await crew.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    room = Room("inference", groups, opened=opened, closed=closed)
    return Inference(room, ports, log)


def _log(ground: Ground) -> WatchedLog:
    return WatchedLog(
        Logging(
            replica=REPLICA,
            writer=ground.bus,
            clock=ground.clock,
            ids=ground.ids("inference"),
            sampling=Sampling(text=1.0, embedding=1.0),
            seconds=0.5,
            records=100,
            capacity=20_000,
        )
    )


def _reporter(ground: Ground, roster: Roster) -> ReplicaReporter:
    def build_report(sequence: int, leaving: bool) -> ReplicaReported:
        return roster.report(replica=REPLICA, address="127.0.0.1:1", sequence=sequence, capacity=64, leaving=leaving)

    reporting = Reporting(
        writer=ground.bus,
        clock=ground.clock,
        ids=ground.ids("inference"),
        sequence=ground.sequence,
        heartbeat_seconds=5.0,
    )
    return ReplicaReporter(build_report, reporting)


@dataclass
class Monitor:
    room: Room
    ports: monitor.Ports


async def build_monitor(ground: Ground) -> Monitor:
    database = await ground.database("monitor", MONITOR_MIGRATIONS)

    def begin(session: AsyncSession) -> MonitorTx:
        return MonitorTx(session, clock=ground.clock, ids=ground.ids("monitor"), source="millrace/monitor")

    store = SqlStore(database, begin)
    policy = MonitorSettings.model_validate(MONITOR).policy()
    ports = monitor.Ports(store, ground.clock, StoredBaselines(ground.shelf), inline, policy)
    subscribers = _subscribers(partial(monitor_events.subscribe, ports=ports), ground)
    room = _room("monitor", ground, database, [subscribers, *_batches(monitor_events.batches(ports), ground)])
    room.timers = TimerLoop(store, monitor_events.timers(ports), ground.clock)
    room.opened = partial(begin_upkeep, ports)
    return Monitor(room, ports)


def _room(name: str, ground: Ground, database: FragileDatabase, groups: list[Group]) -> Room:
    return Room(name, groups, database, Relay(database, ground.bus, ground.clock))


def _subscribers(subscribe: Subscribe, ground: Ground) -> Group:
    return InMemorySubscribers(subscribe, Delivery(ground.bus, ground.clock), ground.clock)


def _batches(handlers: Mapping[Any, BatchHandler], ground: Ground) -> list[Group]:
    """Topics that are read in batches, here of one event each."""
    delivery = Delivery(ground.bus, ground.clock)

    def group(event: type[Event], handle: BatchHandler) -> Group:
        consumer = BatchConsumer(
            event, handle, bootstrap_servers="", service="virtual", delivery=delivery, clock=ground.clock
        )
        return InMemoryConsumer([event.topic], lambda message: consumer.deliver([message]))

    return [group(event, handle) for event, handle in handlers.items()]


def _compacted(handlers: dict[type[Event], Handler], ground: Ground) -> Group:
    reader = CompactedTopicReader(handlers, bootstrap_servers="", client="virtual", clock=ground.clock)
    return InMemoryConsumer(reader.topics, reader.on_message)
