"""The five rooms by their own `app.build`, on the house's ground instead of broker, wire and machine."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from services.gateway import app as gateway_app
from services.gateway import ports as gateway
from services.gateway.outbound.limits import MemoryLimits
from services.gateway.outbound.store import MIGRATIONS as GATEWAY_MIGRATIONS
from services.gateway.settings import GatewaySettings
from services.inference import app as inference_app
from services.inference import ports as inference
from services.inference.handlers import restore
from services.inference.outbound.crew import TaskCrew
from services.inference.outbound.logs import LogWriter
from services.inference.outbound.reporter import ReplicaReporter
from services.inference.settings import InferenceSettings
from services.kit.jobs.worker import Worker
from services.kit.messaging.envelope import Message
from services.kit.messaging.ports import Group
from services.kit.persistence.sql.store import SqlStore
from services.kit.service import Service
from services.monitor import app as monitor_app
from services.monitor import ports as monitor
from services.monitor.handlers.maintenance import schedule_maintenance
from services.monitor.outbound.store import MIGRATIONS as MONITOR_MIGRATIONS
from services.monitor.settings import MonitorSettings
from services.registry import app as registry_app
from services.registry import ports as registry
from services.registry.handlers import deployments
from services.registry.outbound.store import RegistryTx
from services.registry.settings import RegistrySettings
from services.trainer import app as trainer_app
from services.trainer import ports as trainer
from services.trainer.settings import TrainerSettings
from tests.e2e.virtual.engines import AcceptingChecker, StandInEngines
from tests.e2e.virtual.faults import FragileDatabase
from tests.e2e.virtual.ground import INFERENCE, MONITOR, REGISTRY, REPLICA, TENANT, TRAINER, Bus, Ground
from tests.e2e.virtual.room import Room
from tests.e2e.virtual.serving import QueuedMirrors
from tests.e2e.virtual.shelf import FetchedArtifacts
from tests.e2e.virtual.training import InlineInputs, RegistryAsked, StandInTraining
from tests.unit.gateway.dead_letter_log import DeadLetterLog
from tests.unit.gateway.fakes import FakeKeys
from tests.wiring import SilentServers

T = TypeVar("T")


async def inline(work: Callable[[], T], /) -> T:
    """`Offload` of the monitor: on the same thread, in order."""
    return work()


@dataclass(frozen=True)
class Line:
    """A room's way to the bus. The house joins the bus itself, with a group that outlives the room's process."""

    bus: Bus

    async def send(self, messages: list[Message]) -> None:
        await self.bus.send(messages)

    def join(self, groups: Sequence[Group]) -> None:
        """Left to the house."""


def _common(ground: Ground, name: str, database: FragileDatabase | None = None) -> dict[str, Any]:
    """What every room has in place of the machine."""
    return {
        "clock": ground.clock,
        "ids": ground.ids(name),
        "broker": Line(ground.bus),
        "database": database,
        "artifacts": ground.shelf,
        "servers": SilentServers(),
    }


def _room(service: Service[Any], database: FragileDatabase | None = None) -> Room:
    return Room(service.name, service.groups, database, service.relay, service.timer_loop)


@dataclass
class Gateway:
    room: Room
    ports: gateway.Ports
    mirrors: QueuedMirrors


async def build_gateway(ground: Ground) -> Gateway:
    database, mirrors = await ground.database("gateway", GATEWAY_MIGRATIONS), QueuedMirrors(ground.replicas)
    settings = GatewaySettings.model_validate({"MILLRACE_HOME": ground.folder, "data_roots": str(ground.data)})
    adapters = gateway_app.Adapters(
        **_common(ground, "gateway", database),
        replicas=ground.replicas,
        mirrors=mirrors,
        dead_letters=DeadLetterLog(),
        keys=FakeKeys(),
        generator=ground.generator,
        limiter=MemoryLimits(gateway_app.limits_of(settings), ground.clock),
    )
    service = gateway_app.build(settings, adapters)
    return Gateway(_room(service, database), service.ports, mirrors)


@dataclass
class Registry:
    room: Room
    ports: registry.Ports

    @property
    def store(self) -> SqlStore[RegistryTx]:
        """With what only its own unit of work can do."""
        return cast("SqlStore[RegistryTx]", self.ports.store)


async def build_registry(ground: Ground) -> Registry:
    database = await ground.database("registry", registry_app.MIGRATIONS)
    settings = RegistrySettings.model_validate({"MILLRACE_HOME": ground.folder, **REGISTRY})
    service = registry_app.build(settings, registry_app.Adapters(**_common(ground, "registry", database)))
    room = _room(service, database)
    room.opened = partial(deployments.republish_all, service.ports)
    return Registry(room, service.ports)


@dataclass
class Trainer:
    room: Room
    ports: trainer.Ports
    worker: Worker


async def build_trainer(ground: Ground, registry_ports: Callable[[], registry.Ports]) -> Trainer:
    database = await ground.database("trainer", trainer_app.MIGRATIONS)
    settings = TrainerSettings.model_validate({"MILLRACE_HOME": ground.folder, **TRAINER})
    adapters = trainer_app.Adapters(
        **_common(ground, "trainer", database),
        champions=RegistryAsked(registry_ports, TENANT),
        executor=StandInTraining(ground.shelf, ground.clock, ground.executions),
        inputs=InlineInputs(ground.folder, [ground.data.resolve()]),
    )
    service = trainer_app.build(settings, adapters)
    (worker,) = service.workers
    return Trainer(_room(service, database), service.ports, worker)


@dataclass
class Inference:
    room: Room
    ports: inference.Ports
    log: LogWriter


def build_inference(ground: Ground) -> Inference:
    settings = InferenceSettings.model_validate({"MILLRACE_HOME": ground.folder, **INFERENCE})
    adapters = inference_app.Adapters(
        **_common(ground, "inference"),
        engines=StandInEngines(),
        checker=AcceptingChecker(),
        remembered=ground.remembered,
        sequence=ground.sequence,
        artifact_cache=FetchedArtifacts(ground.shelf, ground.folder / "replica"),
    )
    service = inference_app.build(settings, adapters)
    ports = service.ports
    log, reporter, crew = (
        cast("LogWriter", ports.log),
        cast("ReplicaReporter", ports.reporter),
        cast("TaskCrew", ports.crew),
    )
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

    room = _room(service)
    room.opened, room.closed = opened, closed
    return Inference(room, ports, log)


@dataclass
class Monitor:
    room: Room
    ports: monitor.Ports


async def build_monitor(ground: Ground) -> Monitor:
    database = await ground.database("monitor", MONITOR_MIGRATIONS)
    settings = MonitorSettings.model_validate({"MILLRACE_HOME": ground.folder, **MONITOR})
    adapters = monitor_app.Adapters(**_common(ground, "monitor", database), offload=inline)
    service = monitor_app.build(settings, adapters)
    room = _room(service, database)
    room.opened = partial(schedule_maintenance, service.ports)
    return Monitor(room, service.ports)
