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
from services.inference.handlers.deployments import restore
from services.inference.outbound.load_tasks import OwnedLoadTasks
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
from tests.e2e.virtual.artifact_store import FetchedArtifacts
from tests.e2e.virtual.engines import AcceptingChecker, StandInEngines
from tests.e2e.virtual.environment import INFERENCE, MONITOR, REGISTRY, REPLICA, TENANT, TRAINER, Bus, Environment
from tests.e2e.virtual.faults import FragileDatabase
from tests.e2e.virtual.service import ServiceUnderTest
from tests.e2e.virtual.serving import QueuedMirrors
from tests.e2e.virtual.training import InlineInputs, RegistryChampions, StandInTraining
from tests.unit.gateway.dead_letter_log import DeadLetterLog
from tests.unit.gateway.fakes import FakeKeys
from tests.wiring import SilentServers

T = TypeVar("T")


async def inline(work: Callable[[], T], /) -> T:
    """`Offload` of the monitor: on the same thread, in order."""
    return work()


@dataclass(frozen=True)
class BusConnection:
    """A room's way to the bus. The house joins the bus itself, with a group that outlives the room's process."""

    bus: Bus

    async def send(self, messages: list[Message]) -> None:
        await self.bus.send(messages)

    def join(self, groups: Sequence[Group]) -> None:
        """Left to the house."""


def _common(environment: Environment, name: str, database: FragileDatabase | None = None) -> dict[str, Any]:
    """What every room has in place of the machine."""
    return {
        "clock": environment.clock,
        "ids": environment.ids(name),
        "broker": BusConnection(environment.bus),
        "database": database,
        "artifacts": environment.artifact_store,
        "servers": SilentServers(),
    }


def _service(service: Service[Any], database: FragileDatabase | None = None) -> ServiceUnderTest:
    return ServiceUnderTest(service.name, service.groups, database, service.relay, service.timer_loop)


@dataclass
class Gateway:
    service: ServiceUnderTest
    ports: gateway.Ports
    mirrors: QueuedMirrors


async def build_gateway(environment: Environment) -> Gateway:
    database, mirrors = await environment.database("gateway", GATEWAY_MIGRATIONS), QueuedMirrors(environment.replicas)
    settings = GatewaySettings.model_validate(
        {"MILLRACE_HOME": environment.folder, "data_roots": str(environment.data)}
    )
    adapters = gateway_app.Adapters(
        **_common(environment, "gateway", database),
        replicas=environment.replicas,
        mirrors=mirrors,
        dead_letters=DeadLetterLog(),
        keys=FakeKeys(),
        generator=environment.generator,
        limiter=MemoryLimits(gateway_app.limits_of(settings), environment.clock),
    )
    service = gateway_app.build(settings, adapters)
    return Gateway(_service(service, database), service.ports, mirrors)


@dataclass
class Registry:
    service: ServiceUnderTest
    ports: registry.Ports

    @property
    def store(self) -> SqlStore[RegistryTx]:
        """With what only its own unit of work can do."""
        return cast("SqlStore[RegistryTx]", self.ports.store)


async def build_registry(environment: Environment) -> Registry:
    database = await environment.database("registry", registry_app.MIGRATIONS)
    settings = RegistrySettings.model_validate({"MILLRACE_HOME": environment.folder, **REGISTRY})
    service = registry_app.build(settings, registry_app.Adapters(**_common(environment, "registry", database)))
    running = _service(service, database)
    running.opened = partial(deployments.republish_all, service.ports)
    return Registry(running, service.ports)


@dataclass
class Trainer:
    service: ServiceUnderTest
    ports: trainer.Ports
    worker: Worker


async def build_trainer(environment: Environment, registry_ports: Callable[[], registry.Ports]) -> Trainer:
    database = await environment.database("trainer", trainer_app.MIGRATIONS)
    settings = TrainerSettings.model_validate({"MILLRACE_HOME": environment.folder, **TRAINER})
    adapters = trainer_app.Adapters(
        **_common(environment, "trainer", database),
        champions=RegistryChampions(registry_ports, TENANT),
        executor=StandInTraining(environment.artifact_store, environment.clock, environment.executions),
        inputs=InlineInputs(environment.folder, [environment.data.resolve()]),
    )
    service = trainer_app.build(settings, adapters)
    (worker,) = service.workers
    return Trainer(_service(service, database), service.ports, worker)


@dataclass
class Inference:
    service: ServiceUnderTest
    ports: inference.Ports
    log: LogWriter


def build_inference(environment: Environment) -> Inference:
    settings = InferenceSettings.model_validate({"MILLRACE_HOME": environment.folder, **INFERENCE})
    adapters = inference_app.Adapters(
        **_common(environment, "inference"),
        engines=StandInEngines(),
        checker=AcceptingChecker(),
        desired_state=environment.desired_state,
        sequence=environment.sequence,
        artifact_cache=FetchedArtifacts(environment.artifact_store, environment.folder / "replica"),
    )
    service = inference_app.build(settings, adapters)
    ports = service.ports
    log, reporter, load_tasks = (
        cast("LogWriter", ports.log),
        cast("ReplicaReporter", ports.reporter),
        cast("OwnedLoadTasks", ports.load_tasks),
    )
    tasks: list[asyncio.Task[None]] = []

    async def opened() -> None:
        await restore(ports)
        tasks.extend([asyncio.create_task(reporter.run()), asyncio.create_task(log.run())])
        environment.replicas.replicas_by_name[REPLICA] = ports

    async def closed() -> None:
        environment.replicas.replicas_by_name.pop(REPLICA, None)
        await load_tasks.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    running = _service(service)
    running.opened, running.closed = opened, closed
    return Inference(running, ports, log)


@dataclass
class Monitor:
    service: ServiceUnderTest
    ports: monitor.Ports


async def build_monitor(environment: Environment) -> Monitor:
    database = await environment.database("monitor", MONITOR_MIGRATIONS)
    settings = MonitorSettings.model_validate({"MILLRACE_HOME": environment.folder, **MONITOR})
    adapters = monitor_app.Adapters(**_common(environment, "monitor", database), offload=inline)
    service = monitor_app.build(settings, adapters)
    running = _service(service, database)
    running.opened = partial(schedule_maintenance, service.ports)
    return Monitor(running, service.ports)
