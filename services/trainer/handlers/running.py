"""Running: a worker takes a run up, tells how it goes, and keeps the outcome; and somebody may cancel it."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from services.contracts.errors import Unavailable
from services.contracts.events import DatasetReady, ModelTrained, TrainingFailed
from services.kit.log import logger
from services.kit.once import Once
from services.kit.work import JOB_CANCELLED, JOB_DONE, JOB_FAILED, Job, LostLease
from services.trainer import telemetry
from services.trainer.domain.datasets import read_version
from services.trainer.domain.runs import (
    BeginStage,
    Cancel,
    Command,
    Fail,
    ReadData,
    Run,
    RunFailed,
    Succeed,
    TakeUp,
    decide,
    evolve,
)
from services.trainer.domain.spec import DataContent, Failure, Progress
from services.trainer.errors import UnknownRun
from services.trainer.ports import Assignment, Finished, Outcome, Ports, Tx

RUN_JOB: Final = "run"
ACTOR: Final = "trainer"
TOLD_EVERY_SECONDS: Final = 0.5
_BEGINNING: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


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
    champion = await ports.champions.champion(job.tenant, dataset.model)
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
        """Every new stage, what file was read, and progress within a stage twice a second. Raises LostLease."""
        now = self._ports.clock.monotonic()
        soon = progress.stage is self._stage and now - self._told_at < TOLD_EVERY_SECONDS
        if soon and progress.content is None:
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
            if progress.content is not None:
                moved = await _keep_content(tx, self._job, moved, progress.content, self._ports)
            await tx.save_run(replace(moved, progress=progress.fraction), (), actor=ACTOR, reason="", at=now)


async def _keep_content(tx: Tx, job: Job, run: Run, content: DataContent, ports: Ports) -> Run:
    """What the run read is a version of its data set from now on, if it was none before."""
    if run.content == content:
        return run
    run = await _follow(tx, run, ReadData(content), ports, reason="the data set's file was read")
    announced = DatasetReady.model_validate(job.payload["dataset"])
    known = await tx.version(run.tenant, run.dataset, content.sha256)
    await tx.save_version(read_version(known, announced, run, content))
    dataset = await tx.dataset(run.tenant, run.dataset)
    if dataset is not None and dataset.lies_where(announced):
        await tx.save_dataset(replace(dataset, content_hash=content.sha256))
    return run


async def _keep_outcome(job: Job, outcome: Outcome, ports: Ports) -> None:
    """The run's end, its event and the job's end are kept together, or not at all."""
    async with ports.store.transaction() as tx:
        run = await tx.run(job.tenant, job.payload["run"])
        if run is None or run.ended:
            raise LostLease(job=job.id)
        if isinstance(outcome, Finished):
            if outcome.result.content is not None:
                run = await _keep_content(tx, job, run, outcome.result.content, ports)
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


async def cancel_run(
    tenant: str, name: str, ports: Ports, *, actor: str, reason: str, asked: Once | None = None
) -> Run:
    """Ends the run and its job; a worker that has it notices at its next step.

    The same key gives the run as it stands. Raises UnknownRun, RunHasEnded, KeyReused.
    """
    async with ports.store.transaction() as tx:
        if asked is not None and (earlier := await tx.answered_before(asked)) is not None:
            return await run_of(tx, tenant, earlier)
        run = await run_of(tx, tenant, name)
        run = await _follow(tx, run, Cancel(actor, reason), ports, reason=reason, actor=actor)
        await tx.cancel_job(run.id)
        if asked is not None:
            await tx.remember_answer(asked, run.id)
    _measure(run, ports)
    return run


async def run_of(tx: Tx, tenant: str, name: str) -> Run:
    """Raises UnknownRun."""
    run = await tx.run(tenant, name)
    if run is None:
        raise UnknownRun(run=name)
    return run
