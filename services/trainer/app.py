"""The trainer, wired."""

import asyncio
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from services.kit import service as service_parts
from services.kit.core import telemetry
from services.kit.core.clock import Clock, SystemClock
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.unit_of_work import Job
from services.kit.service import Service
from services.kit.storage.uploads import UploadStore
from services.trainer.domain.datasets import RetrainingPolicy
from services.trainer.domain.spec import DEFAULT_BASE_MODEL, ExecutionPolicy, Limits, OnShutdown, RunPolicy
from services.trainer.handlers import attempts, executions
from services.trainer.inbound import events, grpc
from services.trainer.outbound.executor import CHILD, LocalExecutor, LocalPolicy
from services.trainer.outbound.inputs import StoredInputs
from services.trainer.outbound.registry import RegistryChampions
from services.trainer.outbound.store import TrainerTx
from services.trainer.outbound.workspace import Workspace
from services.trainer.ports import Champions, Executor, Ports, RunInputs, Store
from services.trainer.settings import TrainerSettings

MIGRATIONS: Final = Path(__file__).parent / "outbound" / "migrations"


@dataclass(frozen=True, kw_only=True)
class Adapters(service_parts.Adapters):
    """And what the trainer alone opens."""

    champions: Champions | None = None
    executor: Executor | None = None
    inputs: RunInputs | None = None


NOTHING_REPLACED: Final = Adapters()


def build(settings: TrainerSettings, adapters: Adapters = NOTHING_REPLACED) -> Service[Ports]:
    """The whole service; nothing is open before it runs."""
    service: Service[Ports] = Service(settings, adapters)
    database = service.database(MIGRATIONS)

    def begin(session: AsyncSession) -> TrainerTx:
        return TrainerTx(session, clock=service.clock, ids=service.ids, source="millrace/trainer")

    async def work(job: Job) -> None:
        await attempts.work_run(job, service.ports)

    store = SqlStore(database, begin)
    service.ports = ports = _ports(settings, service, adapters, store)
    grpc.serve(service.grpc(), ports)
    service.subscribes(partial(events.subscribe, ports=ports))
    service.consumes_batches(events.batches(ports))
    service.timers(store, events.timer_handlers(ports))
    service.works("worker", store, work, kind=attempts.RUN_JOB, lease_seconds=settings.lease_seconds)
    service.runs("orphans", executions.OrphanWatch(ports, settings.orphan_seconds).run)
    service.http()
    return service


def _ports(settings: TrainerSettings, service: Service[Ports], adapters: Adapters, store: Store) -> Ports:
    return Ports(
        store=store,
        clock=service.clock,
        ids=service.ids,
        champions=adapters.champions or _champions(settings, service),
        executor=adapters.executor or _executor(settings, service),
        inputs=adapters.inputs or _inputs(settings, service),
        retraining=retraining_of(settings),
        wake=service.wake_workers,
        lease_seconds=settings.lease_seconds,
        training=_training(settings),
        execution=_execution(settings),
        examples_limit=settings.examples_limit,
        code_version=telemetry.VERSION,
    )


def _champions(settings: TrainerSettings, service: Service[Ports]) -> RegistryChampions:
    champions = RegistryChampions(settings.registry_address, service.service_key, settings.registry_seconds)
    service.part("registry", close=champions.close)
    return champions


def _executor(settings: TrainerSettings, service: Service[Ports]) -> LocalExecutor:
    executor = local_executor(settings, service.clock)
    if settings.on_shutdown == OnShutdown.CANCEL.value:
        service.part("executor", close=executor.end_all)
    return executor


def _inputs(settings: TrainerSettings, service: Service[Ports]) -> StoredInputs:
    uploads = UploadStore(settings.upload_root(), service.clock, service.ids)
    service.part("uploads", close=uploads.close)
    return StoredInputs(workspace(settings), uploads, settings.roots(), settings.artifact_root())


def local_executor(settings: TrainerSettings, clock: Clock) -> LocalExecutor:
    policy = LocalPolicy(
        threads=settings.run_threads(),
        stop_seconds=settings.stop_seconds,
        run_folder_limit=settings.run_folder_limit,
        traces_folder=settings.traces_folder,
        keys_folder=settings.keys_folder,
        command=shlex.split(settings.child_command) or CHILD,
    )
    return LocalExecutor(workspace(settings), policy, clock)


def end_runs() -> int:
    """For whoever stops everything, and found that the service did not end well: no run's process is left."""
    asyncio.run(local_executor(TrainerSettings.load(), SystemClock()).end_all())
    return 0


def workspace(settings: TrainerSettings) -> Workspace:
    return Workspace(settings.data_folder / "runs")


def retraining_of(settings: TrainerSettings) -> RetrainingPolicy:
    return RetrainingPolicy(
        minimum_examples=settings.minimum_feedback,
        most_examples=settings.most_feedback,
        poll_seconds=settings.feedback_poll_seconds,
        wait_seconds=settings.feedback_wait_hours * 3600,
    )


def _training(settings: TrainerSettings) -> RunPolicy:
    return RunPolicy(
        base_model=settings.base_model or DEFAULT_BASE_MODEL,
        limits=Limits(
            max_bytes=settings.dataset_bytes, max_rows=settings.dataset_rows, memory_mib=settings.memory_mib or None
        ),
        threads=settings.run_threads(),
        checkpoint_steps=settings.checkpoint_steps,
        frozen_layers=settings.frozen_layers,
        device=settings.device,
        fp16=settings.fp16,
    )


def _execution(settings: TrainerSettings) -> ExecutionPolicy:
    return ExecutionPolicy(
        stall_seconds=settings.stall_seconds,
        run_seconds=settings.run_seconds,
        on_shutdown=OnShutdown(settings.on_shutdown),
        attempts=settings.attempts,
        retry_seconds=settings.retry_seconds,
    )
