"""The trainer's use cases: a data set or a drift asks for a run, a worker runs it, and the outcome is told."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from services.contracts.errors import Unavailable
from services.contracts.events import (
    DatasetReady,
    DriftDetected,
    FeedbackReceived,
    InferenceLogged,
    InferenceRecord,
    ModelTrained,
    TrainingFailed,
)
from services.kit import telemetry as tracing
from services.kit.envelope import Cause, Envelope
from services.kit.log import logger
from services.kit.work import JOB_CANCELLED, JOB_DONE, JOB_FAILED, Job, JobRequest, LostLease, Timer
from services.trainer import telemetry
from services.trainer.domain.datasets import Dataset, shifted_since
from services.trainer.domain.runs import (
    BeginStage,
    Cancel,
    Command,
    Fail,
    Run,
    RunFailed,
    RunQueued,
    Succeed,
    TakeUp,
    decide,
    evolve,
)
from services.trainer.domain.spec import Failure, Progress
from services.trainer.errors import UnknownDataset, UnknownRun
from services.trainer.ports import Assignment, Finished, Outcome, Ports, Tx

RUN_JOB: Final = "run"
WAIT_FOR_LABELS: Final = "retraining"
ACTOR: Final = "trainer"
TOLD_EVERY_SECONDS: Final = 0.5
_BEGINNING: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


# --- what asks for a run -----------------------------------------------------------------------


async def take_dataset(envelope: Envelope[DatasetReady], ports: Ports) -> None:
    """Remembers the data set and queues a run on it, in one transaction with the inbox."""
    event, now = envelope.event, ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.first_sight(envelope):
            return
        reason = f"the data set {event.dataset} is ready"
        run = await _queue(tx, event, envelope, ports, cause=f"dataset.ready {event.dataset}", reason=reason)
        await tx.save_dataset(Dataset(envelope.tenant, event, now, run.id))
    ports.wake()


async def take_drift(envelope: Envelope[DriftDetected], ports: Ports) -> None:
    """From now on waits for labels of the new kind of traffic; a timer looks for them."""
    drift, now = envelope.event, ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.first_sight(envelope):
            return
        if await tx.latest_dataset(envelope.tenant, drift.model) is None:
            return  # a model that was not trained here cannot be trained again here
        patience = timedelta(seconds=ports.retraining.patience_seconds)
        payload = {
            "model": drift.model,
            "version": drift.version,
            "since": shifted_since(drift).isoformat(),
            "until": (now + patience).isoformat(),
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
        telemetry.EXAMPLES.labels(model).set(len(examples))
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


async def _queue(
    tx: Tx,
    dataset: DatasetReady,
    origin: Cause | None,
    ports: Ports,
    *,
    cause: str,
    reason: str,
    parent: int | None = None,
    since: datetime | None = None,
    tenant: str | None = None,
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
    )
    fact = RunQueued(model=run.model, dataset=run.dataset, cause=cause, parent=parent)
    await tx.save_run(run, (fact,), actor=ACTOR, reason=reason, at=now)
    payload = {"run": run.id, "dataset": dataset.model_dump(mode="json")}
    if since is not None:
        payload |= {"since": since.isoformat(), "until": now.isoformat()}
    await tx.enqueue_job(JobRequest(run.id, RUN_JOB, payload, run.tenant), cause=origin)
    return run


# --- labelled traffic --------------------------------------------------------------------------


async def keep_texts(batch: Sequence[Envelope[InferenceLogged]], ports: Ports) -> None:
    """Keeps the texts that clients asked about; safe to repeat."""
    records: defaultdict[tuple[str, str, str], list[InferenceRecord]] = defaultdict(list)
    for envelope in batch:
        place = (envelope.tenant, envelope.event.deployment, envelope.event.model)
        records[place].extend(
            record
            for record in envelope.event.records
            if record.text and record.outcome == "ok" and not record.mirrored
        )
    async with ports.store.transaction() as tx:
        for (tenant, deployment, model), found in records.items():
            if found:
                await tx.keep_texts(tenant, deployment, model, found, most=ports.kept_examples)


async def keep_labels(batch: Sequence[Envelope[FeedbackReceived]], ports: Ports) -> None:
    """Keeps what people said was right, the latest for each request; a label that was taken before changes nothing."""
    labels: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    async with ports.store.transaction() as tx:
        for envelope in batch:
            if await tx.first_sight(envelope):  # repeated alone, and late, it would undo a correction
                place = (envelope.tenant, envelope.event.deployment)
                labels[place].append((envelope.event.request, envelope.event.label))
        for (tenant, deployment), found in labels.items():
            await tx.keep_labels(tenant, deployment, found, ports.clock.now(), most=ports.kept_examples)


# --- running -----------------------------------------------------------------------------------


async def work_run(job: Job, ports: Ports) -> None:
    """One attempt at a run, from taking it up to telling how it went. Raises LostLease, Unavailable."""
    try:
        assignment = await _take_up(job, ports)
        if assignment is None:
            return
        outcome = await ports.executor.run(assignment, _Telling(job, ports).tell)
    except asyncio.CancelledError:
        await asyncio.shield(_give_back(job, ports))
        raise
    await _keep_outcome(job, outcome, ports)


async def _take_up(job: Job, ports: Ports) -> Assignment | None:
    """None when the run has ended meanwhile."""
    dataset = DatasetReady.model_validate(job.payload["dataset"])
    champion = await ports.champions.champion(dataset.model)
    async with ports.store.transaction() as tx:
        run = await tx.run(job.tenant, job.payload["run"])
        if run is None or run.ended:
            await tx.finish_job(job, JOB_CANCELLED)
            return None
        await _follow(tx, run, TakeUp(job.attempt), ports, reason=f"attempt {job.attempt}")
        since, until = (
            datetime.fromisoformat(job.payload.get(key, _BEGINNING.isoformat())) for key in ("since", "until")
        )
        examples = await tx.labelled(job.tenant, run.model, since, until, ports.retraining.most_examples)
    return Assignment(run.id, run.tenant, job.fence, dataset, examples, champion)


class _Telling:
    """Mirrors a run's progress into its row, and at the same time proves that the lease still holds."""

    def __init__(self, job: Job, ports: Ports) -> None:
        self._job = job
        self._ports = ports
        self._told_at = float("-inf")
        self._stage: object = None

    async def tell(self, progress: Progress) -> None:
        """Every new stage, and progress within one twice a second. Raises LostLease."""
        now = self._ports.clock.monotonic()
        if progress.stage is self._stage and now - self._told_at < TOLD_EVERY_SECONDS:
            return
        self._told_at, self._stage = now, progress.stage
        try:
            await self._mirror(progress)
        except Unavailable as away:
            logger.warning("the progress of %s is not mirrored: %s", self._job.payload["run"], away)

    async def _mirror(self, progress: Progress) -> None:
        async with self._ports.store.transaction() as tx:
            run = await tx.run(self._job.tenant, self._job.payload["run"])
            if run is None or run.ended:
                raise LostLease(job=self._job.id)
            now = self._ports.clock.now()
            await tx.renew_job(self._job, now, self._ports.lease_seconds)
            moved = await _follow(tx, run, BeginStage(progress.stage), self._ports, reason=progress.message)
            await tx.save_run(replace(moved, progress=progress.fraction), (), actor=ACTOR, reason="", at=now)


async def _keep_outcome(job: Job, outcome: Outcome, ports: Ports) -> None:
    """The run's end, its event and the job's end are kept together, or not at all."""
    async with ports.store.transaction() as tx:
        run = await tx.run(job.tenant, job.payload["run"])
        if run is None or run.ended:
            raise LostLease(job=job.id)
        if isinstance(outcome, Finished):
            done = await _follow(
                tx, run, Succeed(outcome.artifact, outcome.result), ports, reason="every stage is done"
            )
            await tx.emit(_model_trained(job, done, outcome, ports), cause=job.cause, tenant=job.tenant)
            await tx.finish_job(job, JOB_DONE)
        else:
            done = await _follow(tx, run, Fail(outcome, ports.attempts), ports, reason=outcome.reason)
            await _keep_failure(tx, job, done, outcome, ports)
    _measure(done, ports)


async def _keep_failure(tx: Tx, job: Job, run: Run, failure: Failure, ports: Ports) -> None:
    if not run.ended:
        telemetry.RUNS_PUT_BACK.labels(failure.code).inc()
        await tx.release_job(job, ports.clock.now() + timedelta(seconds=ports.retry_seconds * run.failed_attempts))
        return
    failed = TrainingFailed(
        model=run.model,
        run=run.id,
        dataset=run.dataset,
        stage=failure.stage,
        code=failure.code,
        reason=failure.reason,
        row=failure.row,
        retryable=failure.retryable,
    )
    await tx.emit(failed, cause=job.cause, tenant=job.tenant)
    await tx.finish_job(job, JOB_FAILED)


def _model_trained(job: Job, run: Run, finished: Finished, ports: Ports) -> ModelTrained:
    dataset = DatasetReady.model_validate(job.payload["dataset"])
    result = finished.result
    return ModelTrained(
        model=run.model,
        run=run.id,
        dataset=run.dataset,
        data_hash=result.data_hash,
        parent=run.parent,
        code_version=ports.code_version,
        base_model=result.base_model,
        recipe=dataset.recipe,
        artifact=finished.artifact,
        variants=result.variants,
        metrics=result.metrics,
        comparison=result.comparison,
        deploy=dataset.deploy,
    )


async def _give_back(job: Job, ports: Ports) -> None:
    """This process is told to stop: the next one may go on at once, without waiting for the lease to run out."""
    with suppress(LostLease):
        async with ports.store.transaction() as tx:
            await tx.release_job(job, ports.clock.now())


def _measure(run: Run, ports: Ports) -> None:
    if run.ended:
        telemetry.RUNS_ENDED.labels(run.status).inc()
        telemetry.RUN_SECONDS.observe((ports.clock.now() - run.created_at).total_seconds())


async def _follow(tx: Tx, run: Run, command: Command, ports: Ports, *, reason: str, actor: str = ACTOR) -> Run:
    """Decides, and keeps what follows."""
    now = ports.clock.now()
    facts = decide(run, command)
    for fact in facts:
        run = evolve(run, fact, now)
        if isinstance(fact, RunFailed):
            reason = fact.failure.reason
    if facts:
        await tx.save_run(run, facts, actor=actor, reason=reason, at=now)
    return run


# --- what people ask ---------------------------------------------------------------------------


async def cancel_run(tenant: str, name: str, ports: Ports, *, actor: str, reason: str) -> Run:
    """Ends the run and its job; a worker that has it notices at its next step. Raises UnknownRun, RunHasEnded."""
    async with ports.store.transaction() as tx:
        run = await tx.run(tenant, name)
        if run is None:
            raise UnknownRun(run=name)
        run = await _follow(tx, run, Cancel(), ports, reason=reason, actor=actor)
        await tx.cancel_job(run.id)
    _measure(run, ports)
    return run


async def get_run(tenant: str, name: str, ports: Ports) -> Run:
    """Raises UnknownRun."""
    async with ports.store.reading() as tx:
        run = await tx.run(tenant, name)
    if run is None:
        raise UnknownRun(run=name)
    return run


async def list_runs(tenant: str, ports: Ports, *, model: str, status: str, before: str, limit: int) -> list[Run]:
    async with ports.store.reading() as tx:
        return await tx.runs(tenant, model=model, status=status, before=before, limit=limit)


async def get_dataset(tenant: str, name: str, ports: Ports) -> Dataset:
    """Raises UnknownDataset."""
    async with ports.store.reading() as tx:
        dataset = await tx.dataset(tenant, name)
    if dataset is None:
        raise UnknownDataset(dataset=name)
    return dataset


async def list_datasets(tenant: str, ports: Ports, *, after: str, limit: int) -> list[Dataset]:
    async with ports.store.reading() as tx:
        return await tx.datasets(tenant, after=after, limit=limit)


async def read_log(tenant: str, name: str, ports: Ports, *, after: int) -> tuple[Run, list[str]]:
    """The run as it stood before the lines were read, so that the lines of an ended run are all of them."""
    run = await get_run(tenant, name, ports)
    return run, await ports.logs.lines(tenant, name, after)
