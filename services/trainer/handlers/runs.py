"""What asks for a run: a data set, a drift, or somebody."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from services.contracts.events import DatasetReady, DriftDetected
from services.kit.core import telemetry as tracing
from services.kit.core.idempotency import IdempotencyKey
from services.kit.messaging.envelope import Envelope, EventRef
from services.kit.persistence.unit_of_work import JobRequest, Timer
from services.trainer import telemetry
from services.trainer.domain.datasets import Dataset, StartRun, announced_version, shifted_since
from services.trainer.domain.runs import Run, RunQueued
from services.trainer.errors import UnknownDataset
from services.trainer.handlers.attempts import RUN_JOB
from services.trainer.handlers.lookup import find_version
from services.trainer.handlers.transitions import ACTOR, run_of
from services.trainer.ports import Ports, Tx

WAIT_FOR_LABELS: Final = "retraining"


async def on_dataset_ready(envelope: Envelope[DatasetReady], ports: Ports) -> None:
    """Remembers the data set and queues a run on it, in one transaction with the inbox."""
    event, now = envelope.event, ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.mark_processed(envelope):
            return
        reason = f"the data set {event.dataset} is ready"
        run = await _queue(tx, event, envelope, ports, cause=f"dataset.ready {event.dataset}", reason=reason)
        await tx.save_dataset(Dataset(envelope.tenant, event, now, run.id, event.content_hash))
        if event.content_hash is not None:
            known = await tx.version(envelope.tenant, event.dataset, event.content_hash)
            await tx.save_version(announced_version(known, envelope.tenant, event, now, run.id))
    ports.wake()


async def on_drift_detected(envelope: Envelope[DriftDetected], ports: Ports) -> None:
    """From now on waits for labels of the new kind of traffic; a timer looks for them."""
    drift, now = envelope.event, ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.mark_processed(envelope):
            return
        if await tx.latest_dataset(envelope.tenant, drift.model) is None:
            return  # a model that was not trained here cannot be trained again here
        wait = timedelta(seconds=ports.retraining.wait_seconds)
        payload = {
            "model": drift.model,
            "version": drift.version,
            "since": shifted_since(drift).isoformat(),
            "until": (now + wait).isoformat(),
        }
        key = f"{WAIT_FOR_LABELS}/{envelope.tenant}/{drift.model}"
        await tx.schedule(Timer(key, WAIT_FOR_LABELS, now, payload, envelope.tenant, cause=envelope))


async def look_for_labels(timer: Timer, ports: Ports) -> None:
    """Queues the run once enough texts of the new kind have labels; looks again later until patience ends."""
    now, policy = ports.clock.now(), ports.retraining
    model, since = str(timer.payload["model"]), datetime.fromisoformat(timer.payload["since"])
    async with ports.store.transaction() as tx:
        if not await tx.take_timer(timer):
            return
        examples = await tx.labelled(timer.tenant, model, since, now, policy.most_examples)
        telemetry.EXAMPLES.set(len(examples), tenant=timer.tenant, model=model)
        dataset = await tx.latest_dataset(timer.tenant, model)
        if dataset is None:
            return
        if len(examples) < policy.minimum_examples:
            if now < datetime.fromisoformat(timer.payload["until"]):
                await tx.schedule(replace(timer, due=now + timedelta(seconds=policy.poll_seconds)))
            return
        version = int(timer.payload["version"])
        reason = f"version {version} drifted, and {len(examples)} labelled texts of the new kind are there"
        cause = f"drift of version {version}"
        await _queue(
            tx, dataset.announced, timer.cause, ports, cause=cause, reason=reason, parent=version, since=since,
            tenant=timer.tenant,
        )  # fmt: skip
    ports.wake()


async def start_run(command: StartRun, idempotency_key: IdempotencyKey | None, ports: Ports) -> Run:
    """A run that somebody asks for; the same key gives the same run.

    Raises UnknownDataset, what `find_version` raises, and KeyReused.
    """
    async with ports.store.transaction() as tx:
        if idempotency_key is not None and (earlier := await tx.find_idempotent_response(idempotency_key)) is not None:
            return await run_of(tx, command.tenant, earlier)
        dataset = await tx.dataset(command.tenant, command.dataset)
        if dataset is None:
            raise UnknownDataset(dataset=command.dataset)
        announced = dataset.announced
        if command.content_hash:
            version = await find_version(tx, command.tenant, command.dataset, command.content_hash)
            announced = version.announced.model_copy(update={"content_hash": version.content_hash})
        run = await _queue(
            tx, command.over(announced), None, ports, cause=f"started by {command.actor}", reason=command.reason,
            tenant=command.tenant, actor=command.actor,
        )  # fmt: skip
        await tx.save_dataset(replace(dataset, latest_run=run.id))
        if command.content_hash:
            await tx.save_version(replace(version, latest_run=run.id))
        if idempotency_key is not None:
            await tx.save_idempotent_response(idempotency_key, run.id)
    ports.wake()
    return run


async def _queue(
    tx: Tx,
    dataset: DatasetReady,
    origin: EventRef | None,
    ports: Ports,
    *,
    cause: str,
    reason: str,
    parent: int | None = None,
    since: datetime | None = None,
    tenant: str | None = None,
    actor: str = ACTOR,
) -> Run:
    """The run and the job that will run it. `since` asks for the labelled texts from then till now."""
    now = ports.clock.now()
    run = Run(
        id=ports.ids.new("run"),
        tenant=tenant or (origin.tenant if origin else "default"),
        model=dataset.model,
        dataset=dataset.dataset,
        cause=cause,
        parent=parent,
        created_at=now,
        trace_id=tracing.current_trace_id(),
        announced_hash=dataset.content_hash,
        recipe=dataset.recipe,
        deploy=dataset.deploy,
        started_by=actor,
        start_reason=reason,
    )
    fact = RunQueued(
        model=run.model, dataset=run.dataset, cause=cause, parent=parent, content_hash=dataset.content_hash
    )
    await tx.save_run(run, (fact,), actor=actor, reason=reason, at=now)
    payload = {"run": run.id, "dataset": dataset.model_dump(mode="json")}
    if since is not None:
        payload |= {"since": since.isoformat(), "until": now.isoformat()}
    await tx.enqueue_job(JobRequest(run.id, RUN_JOB, payload, run.tenant), cause=origin)
    return run
