"""The trainer, wired."""

import asyncio
import shlex
from functools import partial
from pathlib import Path
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from services.kit.core import telemetry
from services.kit.core.clock import Clock, SystemClock
from services.kit.jobs.timers import TimerLoop
from services.kit.jobs.worker import Worker
from services.kit.messaging.batch_consumer import BatchConsumer
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.unit_of_work import Job
from services.kit.service import Service
from services.kit.storage.uploads import UploadStore
from services.trainer.domain.datasets import RetrainingPolicy
from services.trainer.domain.spec import DEFAULT_BASE_MODEL, ExecutionPolicy, Limits, OnShutdown, RunPolicy
from services.trainer.handlers import executions, running
from services.trainer.inbound import events, rpc
from services.trainer.outbound.executor import CHILD, LocalExecutor, LocalPolicy
from services.trainer.outbound.inputs import StoredInputs
from services.trainer.outbound.registry import RegistryChampions
from services.trainer.outbound.store import TrainerTx
from services.trainer.outbound.workspace import Workspace
from services.trainer.ports import Ports, Store
from services.trainer.settings import TrainerSettings

MIGRATIONS: Final = Path(__file__).parent / "outbound" / "migrations"


def build(settings: TrainerSettings) -> Service:
    """The whole service; nothing is open before it runs."""
    service = Service(settings)
    database = Database(settings.sql_url(), MIGRATIONS)

    def begin(session: AsyncSession) -> TrainerTx:
        return TrainerTx(session, clock=service.clock, ids=service.ids, source="millrace/trainer")

    async def work(job: Job) -> None:
        await running.work_run(job, ports)

    store = SqlStore(database, begin)
    champions = RegistryChampions(settings.registry_address, service.service_key, settings.registry_seconds)
    worker = Worker(
        store,
        work,
        kind=running.RUN_JOB,
        owner=service.ids.new("worker"),
        lease_seconds=settings.lease_seconds,
        clock=service.clock,
    )
    ports = _ports(settings, service, store, champions, worker)
    service.database(database)
    service.part("registry", close=champions.close)
    rpc.serve(service.grpc(), ports)
    _consume(settings, service, ports)
    service.runs("timers", TimerLoop(store, events.timer_handlers(ports), service.clock).run)
    service.runs("worker", worker.run)
    service.runs("orphans", executions.OrphanWatch(ports, settings.orphan_seconds).run)
    service.http()
    return service


def _ports(
    settings: TrainerSettings, service: Service, store: Store, champions: RegistryChampions, worker: Worker
) -> Ports:
    uploads = UploadStore(settings.upload_root(), service.clock, service.ids)
    service.part("uploads", close=uploads.close)
    executor = local_executor(settings, service.clock)
    if settings.on_shutdown == "cancel":
        service.part("executor", close=executor.end_all)
    return Ports(
        store=store,
        clock=service.clock,
        ids=service.ids,
        champions=champions,
        executor=executor,
        inputs=StoredInputs(workspace(settings), uploads, settings.roots(), settings.artifact_root()),
        retraining=retraining_of(settings),
        wake=worker.wake.set,
        lease_seconds=settings.lease_seconds,
        training=_training(settings),
        execution=_execution(settings),
        kept_examples=settings.kept_examples,
        code_version=telemetry.VERSION,
    )


def _consume(settings: TrainerSettings, service: Service, ports: Ports) -> None:
    service.subscribes(partial(events.subscribe, ports=ports))
    for event, handle in events.batches(ports).items():
        consumer = BatchConsumer(
            event,
            handle,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            service=service.name,
            delivery=service.delivery(),
            clock=service.clock,
        )
        service.runs(event.topic, consumer.run)


def local_executor(settings: TrainerSettings, clock: Clock) -> LocalExecutor:
    policy = LocalPolicy(
        threads=settings.run_threads(),
        stop_seconds=settings.stop_seconds,
        runs_kept=settings.runs_kept,
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
        patience_seconds=settings.feedback_patience_hours * 3600,
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
    )


def _execution(settings: TrainerSettings) -> ExecutionPolicy:
    return ExecutionPolicy(
        stall_seconds=settings.stall_seconds,
        run_seconds=settings.run_seconds,
        on_shutdown=OnShutdown(settings.on_shutdown),
        attempts=settings.attempts,
        retry_seconds=settings.retry_seconds,
    )
