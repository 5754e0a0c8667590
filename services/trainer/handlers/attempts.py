"""Running: a worker follows a run's execution and keeps its progress and outcome; somebody may cancel it."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Final

from services.contracts.errors import Unavailable
from services.contracts.events import DatasetReady, ModelTrained, TrainingFailed
from services.kit.core.idempotency import IdempotencyKey
from services.kit.core.log import logger
from services.kit.core.tabular import UnusableData
from services.kit.persistence.unit_of_work import JOB_DONE, JOB_FAILED, Job, LostLease
from services.trainer import telemetry
from services.trainer.domain.datasets import read_version
from services.trainer.domain.runs import BeginStage, Cancel, Fail, ReadData, Run, Succeed
from services.trainer.domain.spec import INTERRUPTED, DataContent, Failure, Handle, OnShutdown, RunResult, Stage
from services.trainer.errors import UnknownExecution
from services.trainer.handlers.executions import schedule_end, start_or_attach
from services.trainer.handlers.transitions import ACTOR, follow, leased_run, put_back, run_of
from services.trainer.ports import Execution, Outcome, Ports, Tx

RUN_JOB: Final = "run"
MIRRORED_EVERY_SECONDS: Final = 0.5


async def work_run(job: Job, ports: Ports) -> None:
    """Follows a run until its attempt has an outcome, and keeps that. Raises LostLease, Unavailable.

    When this process stops, the execution goes on or is ended, as the policy says; the next one takes it from there.
    """
    try:
        outcome = await _outcome(job, ports)
    except asyncio.CancelledError:
        await asyncio.shield(_release(job, ports))
        raise
    if outcome is not None:
        await _keep_outcome(job, outcome, ports)


async def _outcome(job: Job, ports: Ports) -> Outcome | None:
    """None when the run had ended."""
    try:
        following = await start_or_attach(job, ports)
    except UnknownExecution as lost:
        return Failure(stage=Stage.PREPARE, code="lost", reason=str(lost), retryable=True)
    except UnusableData as refused:
        return Failure(stage=Stage.PREPARE, code=refused.code, reason=str(refused), retryable=False)
    return await _follow_execution(job, *following, ports) if following is not None else None


async def _follow_execution(job: Job, run: Run, handle: Handle, ports: Ports) -> Outcome:
    """Polls until there is an outcome. An execution that hangs, or takes too long, is ended."""
    mirror = _Mirror(job, run, ports)
    while True:
        execution = await ports.executor.poll(handle, mirror.run.progress_read)
        await mirror.write(execution)
        if execution.outcome is not None:
            return execution.outcome
        if (overdue := _overdue(execution, mirror.stage, ports)) is not None:
            await ports.executor.cancel(handle)
            at_last = (await ports.executor.poll(handle, mirror.run.progress_read)).outcome
            return at_last if isinstance(at_last, RunResult) else overdue
        await ports.clock.sleep(ports.execution.poll_seconds)


def _overdue(execution: Execution, stage: Stage, ports: Ports) -> Failure | None:
    """Why the execution is to be ended now; None while it keeps within its limits."""
    now, policy = ports.clock.now(), ports.execution
    if (now - execution.started_at).total_seconds() > policy.run_seconds:
        reason = f"the attempt took longer than {policy.run_seconds:g} s"
        return Failure(stage=stage, code="too_long", reason=reason, retryable=False)
    if (now - execution.active_at).total_seconds() > policy.stall_seconds:
        reason = f"the attempt showed no progress for {policy.stall_seconds:g} s"
        return Failure(stage=stage, code="stalled", reason=reason, retryable=True)
    return None


class _Mirror:
    """A run's progress in its row. Writing it proves that the lease still holds."""

    def __init__(self, job: Job, run: Run, ports: Ports) -> None:
        self.run = run
        self.stage = run.stage
        self._job = job
        self._ports = ports
        self._written_at = float("-inf")

    async def write(self, execution: Execution) -> None:
        """Every new stage, what file was read, and progress within a stage twice a second. Raises LostLease.

        What is not written now is reported by the next poll again.
        """
        if not execution.progress:
            return
        now = self._ports.clock.monotonic()
        soon = now - self._written_at < MIRRORED_EVERY_SECONDS and execution.outcome is None
        if soon and all(step.stage is self.stage and step.content is None for step in execution.progress):
            return
        try:
            await self._write_now(execution)
        except Unavailable as away:
            logger.warning("the progress of %s is not mirrored: %s", self.run.id, away)
            return
        self._written_at, self.stage = now, execution.progress[-1].stage

    async def _write_now(self, execution: Execution) -> None:
        async with self._ports.store.transaction() as tx:
            run = await leased_run(tx, self._job, self._ports)
            for step in execution.progress:
                run = await follow(tx, run, BeginStage(step.stage), self._ports, reason=step.message)
                if step.content is not None:
                    run = await _keep_content(tx, self._job, run, step.content, self._ports)
            last = execution.progress[-1]
            run = replace(run, progress=last.fraction, progress_read=execution.progress_read)
            await tx.save_run(run, (), actor=ACTOR, reason="", at=self._ports.clock.now())
        self.run = run


async def _keep_content(tx: Tx, job: Job, run: Run, content: DataContent, ports: Ports) -> Run:
    """What the run read is a version of its data set from now on, if it was none before."""
    if run.content == content:
        return run
    run = await follow(tx, run, ReadData(content), ports, reason="the data set's file was read")
    announced = DatasetReady.model_validate(job.payload["dataset"])
    known = await tx.version(run.tenant, run.dataset, content.sha256)
    await tx.save_version(read_version(known, announced, run, content))
    dataset = await tx.dataset(run.tenant, run.dataset)
    if dataset is not None and dataset.lies_where(announced):
        await tx.save_dataset(replace(dataset, content_hash=content.sha256))
    return run


async def _keep_outcome(job: Job, outcome: Outcome, ports: Ports) -> None:
    """The run's end, its event and the job's end are kept together, or not at all. Raises LostLease, Unavailable."""
    async with ports.store.transaction() as tx:
        run = await leased_run(tx, job, ports)
        if isinstance(outcome, RunResult):
            if outcome.content is not None:
                run = await _keep_content(tx, job, run, outcome.content, ports)
            done = await follow(tx, run, Succeed(outcome), ports, reason="every stage is done")
            await tx.emit(_model_trained(job, done, outcome, ports), cause=job.cause, tenant=job.tenant)
            await tx.finish_job(job, JOB_DONE)
        else:
            done = await follow(tx, run, Fail(outcome, ports.execution.attempts), ports, reason=outcome.reason)
            await _keep_failure(tx, job, done, outcome, ports)
    _measure(done, outcome, ports)


async def _keep_failure(tx: Tx, job: Job, run: Run, failure: Failure, ports: Ports) -> None:
    if not run.ended:
        interrupted = failure.code == INTERRUPTED
        pause = 0.0 if interrupted else ports.execution.retry_seconds * run.failed_attempts
        await put_back(tx, job, ports, pause_seconds=pause)
        return
    failed = TrainingFailed(
        model=run.model,
        run=run.id,
        dataset=run.dataset,
        stage=failure.stage,
        code=failure.code,
        reason=failure.reason,
        field=failure.field,
        hint=failure.hint,
        row=failure.row,
        retryable=failure.retryable,
    )
    await tx.emit(failed, cause=job.cause, tenant=job.tenant)
    await tx.finish_job(job, JOB_FAILED)


def _model_trained(job: Job, run: Run, result: RunResult, ports: Ports) -> ModelTrained:
    dataset = DatasetReady.model_validate(job.payload["dataset"])
    return ModelTrained(
        model=run.model,
        run=run.id,
        dataset=run.dataset,
        data_hash=result.data_hash,
        parent=run.parent,
        code_version=ports.code_version,
        base_model=result.base_model,
        recipe=dataset.recipe,
        artifact=result.artifact,
        variants=result.variants,
        metrics=result.metrics,
        comparison=result.comparison,
        deploy=dataset.deploy,
    )


async def _release(job: Job, ports: Ports) -> None:
    """This process is to stop, or the lease has passed: then another worker follows the run, or it was cancelled."""
    with suppress(LostLease):
        async with ports.store.transaction() as tx:
            run = await leased_run(tx, job, ports)
            if not run.executing or run.handle is None or ports.execution.on_shutdown is OnShutdown.DETACH:
                await put_back(tx, job, ports)
                return
        await ports.executor.cancel(run.handle)
        execution = await ports.executor.poll(run.handle, run.progress_read)
        stopped = Failure(stage=run.stage, code=INTERRUPTED, reason="the trainer was asked to stop", retryable=True)
        await _keep_outcome(job, execution.outcome or stopped, ports)


def _measure(run: Run, outcome: Outcome | None, ports: Ports) -> None:
    if run.ended:
        telemetry.RUNS_ENDED.add(1, tenant=run.tenant, status=run.status)
        telemetry.RUN_SECONDS.record((ports.clock.now() - run.created_at).total_seconds(), tenant=run.tenant)
    elif isinstance(outcome, Failure):
        telemetry.RUNS_PUT_BACK.add(1, tenant=run.tenant, code=outcome.code)


async def cancel_run(
    tenant: str, name: str, ports: Ports, *, actor: str, reason: str, idempotency_key: IdempotencyKey | None = None
) -> Run:
    """Ends the run, its job, and what executes it. The same key gives the run as it stands.

    Raises UnknownRun, RunHasEnded, KeyReused.
    """
    async with ports.store.transaction() as tx:
        if idempotency_key is not None and (earlier := await tx.find_idempotent_response(idempotency_key)) is not None:
            return await run_of(tx, tenant, earlier)
        run = await run_of(tx, tenant, name)
        if run.executing and run.handle is not None:
            await schedule_end(tx, run.handle, ports)
        run = await follow(tx, run, Cancel(actor, reason), ports, reason=reason, actor=actor)
        await tx.cancel_job(run.id)
        if idempotency_key is not None:
            await tx.save_idempotent_response(idempotency_key, run.id)
    _measure(run, None, ports)
    return run
