"""Batches: a file is queued, a worker has it answered part by part, and whoever asks is told how far it is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

from services.contracts.errors import BadField, InternalError, Kind, MillraceError
from services.contracts.tasks.registry import AnyTask
from services.contracts.tasks.task import RequestLimits
from services.gateway.domain.batches import (
    Batch,
    BatchFailure,
    BatchQueued,
    BatchSpec,
    Cancel,
    Command,
    Fail,
    Outcome,
    Part,
    StartAttempt,
    Succeed,
    decide,
    evolve,
    failure_of,
    with_part,
)
from services.gateway.domain.requests import Caller, check_name
from services.gateway.domain.rows import (
    InputRow,
    OutputRow,
    answer_lines,
    checked,
    command_of,
    error_line,
    groups,
    part_of,
)
from services.gateway.errors import BatchHasNoOutput, TooManyBatches, UnknownBatch
from services.gateway.handlers.predictions import unknown
from services.gateway.handlers.retrying import PASSING, RetryingClient
from services.gateway.ports import OpenInput, Ports, Tx
from services.gateway.telemetry import BATCH_ROWS, BATCHES_ENDED
from services.kit.core import telemetry
from services.kit.core.idempotency import IdempotencyKey, bind_key
from services.kit.core.log import logger
from services.kit.persistence.unit_of_work import JOB_DONE, JOB_FAILED, Job, JobRequest, LostLease

BATCH_JOB: Final = "batch"
ACTOR: Final = "gateway"
FOREVER: Final = float("inf")
UNSAMPLED: Final = "00"


# --- what people ask ---------------------------------------------------------------------------


async def create_batch(spec: BatchSpec, caller: Caller, ports: Ports) -> Batch:
    """Queues a batch. Raises UnknownTask, BadField, UnknownDeployment, VersionNotServed, a kind of UnusableData,
    TooManyBatches or KeyReused."""
    idempotency_key = bind_key(caller.tenant, caller.idempotency_key, b"CreateBatch", spec.model_dump_json().encode())
    async with ports.store.transaction() as tx:
        if (earlier := await _find_idempotent(tx, idempotency_key)) is not None:
            return earlier
        await _check(spec, caller, ports)
        queued = await tx.open_batches(caller.tenant)
        if queued >= ports.batching.policy.open_limit:
            raise TooManyBatches(queued=queued, retry_after_seconds=ports.policy.outbox_retry_seconds)
        batch = Batch(
            id=ports.ids.new("batch"),
            tenant=caller.tenant,
            spec=spec,
            created_by=caller.actor,
            created_at=ports.clock.now(),
            trace_id=telemetry.current_trace_id(),
        )
        await tx.save_batch(batch, (BatchQueued(spec=spec),), actor=caller.actor, reason="asked for")
        await tx.enqueue_job(JobRequest(batch.id, BATCH_JOB, {"batch": batch.id}, batch.tenant))
        if idempotency_key is not None:
            await tx.save_idempotent_response(idempotency_key, batch.id)
    ports.batching.wake()
    return batch


async def _check(spec: BatchSpec, caller: Caller, ports: Ports) -> None:
    check_name(spec.deployment, "deployment")
    task = ports.tasks.named(spec.task)
    for name in spec.options.keys() - (task.fields - {"texts"}):
        raise BadField(
            name=f"options.{name}"[:100], problem="the task has no such field", field=f"options.{name}"[:100]
        )
    task.from_texts([], spec.options)
    if not ports.routes.knows(caller.tenant, spec.deployment):
        raise unknown(spec.deployment, ports)
    ports.routes.plan(caller.tenant, spec.deployment, ticket=0.0, version=spec.version)
    await ports.batching.inputs.check(spec.uri, caller.tenant)


async def cancel_batch(name: str, caller: Caller, ports: Ports, *, reason: str) -> Batch:
    """Ends the batch and its job; a worker that has it notices at its next part. Raises UnknownBatch, BatchHasEnded."""
    idempotency_key = bind_key(caller.tenant, caller.idempotency_key, b"CancelBatch", name.encode(), reason.encode())
    async with ports.store.transaction() as tx:
        if (earlier := await _find_idempotent(tx, idempotency_key)) is not None:
            return earlier
        batch = await _current(tx, caller.tenant, name)
        batch = await _follow(tx, batch, Cancel(), ports, reason=reason, actor=caller.actor)
        await tx.cancel_job(batch.id)
        if idempotency_key is not None:
            await tx.save_idempotent_response(idempotency_key, batch.id)
    BATCHES_ENDED.add(1, tenant=batch.tenant, status=batch.status)
    await ports.batching.results.tidy(batch)
    return batch


async def _find_idempotent(tx: Tx, idempotency_key: IdempotencyKey | None) -> Batch | None:
    """The batch that the key's first request was about, as it stands now."""
    earlier = await tx.find_idempotent_response(idempotency_key) if idempotency_key is not None else None
    return (
        await _current(tx, idempotency_key.tenant, earlier)
        if idempotency_key is not None and earlier is not None
        else None
    )


async def get_batch(tenant: str, name: str, ports: Ports) -> Batch:
    """Raises UnknownBatch."""
    async with ports.store.reading() as tx:
        return await _current(tx, tenant, name)


async def list_batches(
    tenant: str, ports: Ports, *, deployment: str, status: str, before: str, limit: int
) -> list[Batch]:
    async with ports.store.reading() as tx:
        return await tx.batches(tenant, deployment=deployment, status=status, before=before, limit=limit)


async def read_output(tenant: str, name: str, ports: Ports) -> tuple[Outcome, AsyncIterator[bytes]]:
    """Raises UnknownBatch or BatchHasNoOutput."""
    batch = await get_batch(tenant, name, ports)
    if batch.outcome is None:
        raise BatchHasNoOutput(batch=batch.id, status=batch.status)
    return batch.outcome, ports.batching.results.read(batch.outcome)


async def _current(tx: Tx, tenant: str, name: str) -> Batch:
    batch = await tx.batch(tenant, name)
    if batch is None:
        raise UnknownBatch(batch=name[:200])
    return batch


# --- running -----------------------------------------------------------------------------------


async def work_batch(job: Job, client: RetryingClient, ports: Ports) -> None:
    """One attempt at a batch, from the first row that no part holds. Raises LostLease, and what passes by itself."""
    try:
        await _keep_end(job, await _ended(job, client, ports), ports)
    except asyncio.CancelledError:
        await asyncio.shield(_give_back(job, ports))
        raise
    except LostLease:
        await _tidy(job, ports)
        raise


async def _ended(job: Job, client: RetryingClient, ports: Ports) -> Outcome | BatchFailure:
    try:
        return await _run(job, client, ports)
    except BatchStopped as stopped:
        return failure_of(stopped.error)
    except LostLease:
        raise
    except MillraceError as error:
        if error.retryable:  # another attempt follows when the lease has run out
            raise
        return failure_of(error)
    except Exception:  # noqa: BLE001 - another attempt would end like this one
        logger.exception("batch %s failed inside", job.id)
        return failure_of(InternalError())


class BatchStopped(Exception):
    """The deployment answers no row of the batch."""

    def __init__(self, error: MillraceError) -> None:
        self.error = error
        super().__init__(str(error))


async def _run(job: Job, client: RetryingClient, ports: Ports) -> Outcome | BatchFailure:
    async with ports.store.reading() as tx:
        spec = (await _current(tx, job.tenant, job.payload["batch"])).spec
    async with ports.batching.inputs.open(spec, job.tenant) as rows:
        batch = await _start_attempt(job, rows, ports)
        if batch.failure is not None:
            return batch.failure
        while read := await rows.take(ports.batching.policy.part_rows):
            if fresh := [row for row in read if row.number > batch.last_row]:
                lines = await _answer(batch, fresh, client, ports)
                part, content = part_of(batch, lines, fence=job.fence, read_bytes=rows.read_bytes)
                await ports.batching.results.write_part(batch, part, content)
                batch = await _keep_part(job, batch, part, ports)
    async with ports.store.reading() as tx:
        parts = await tx.parts(batch.tenant, batch.id)
    return await ports.batching.results.join(batch, parts, job.fence)


async def _start_attempt(job: Job, rows: OpenInput, ports: Ports) -> Batch:
    """The batch as it runs, or as it failed for a changed input. Raises LostLease when it has ended before."""
    async with ports.store.transaction() as tx:
        batch = await _current(tx, job.tenant, job.payload["batch"])
        if batch.ended:
            raise LostLease(job=job.id)
        command = StartAttempt(job.attempt, rows.stamp, rows.size_bytes)
        return await _follow(tx, batch, command, ports, reason=f"attempt {job.attempt}")


async def _answer(batch: Batch, rows: Sequence[InputRow], client: RetryingClient, ports: Ports) -> list[OutputRow]:
    """A line for each row, in no order. Raises BatchStopped."""
    task, limits = ports.tasks.named(batch.spec.task), RequestLimits(characters=ports.policy.text_limit_chars)
    rows = [checked(row, batch, task, limits) for row in rows]
    lines = [error_line(row, row.problem) for row in rows if row.problem is not None]
    semaphore = asyncio.Semaphore(ports.batching.policy.requests)

    async def predict_group(group: Sequence[InputRow]) -> list[OutputRow]:
        async with semaphore:
            return await _predict(batch, task, group, client)

    requests = [asyncio.ensure_future(predict_group(group)) for group in groups(rows, ports.batching.policy.texts)]
    try:
        for answered in await asyncio.gather(*requests):
            lines.extend(answered)
    finally:
        for one in requests:
            one.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    BATCH_ROWS.add(sum(line.version != 0 for line in lines), tenant=batch.tenant, outcome="ok")
    BATCH_ROWS.add(sum(line.version == 0 for line in lines), tenant=batch.tenant, outcome="error")
    return lines


async def _predict(batch: Batch, task: AnyTask, rows: Sequence[InputRow], client: RetryingClient) -> list[OutputRow]:
    """A text that the model refuses takes the others with it: then each is asked about alone."""
    command = command_of(batch, task, rows, deadline=FOREVER)
    try:
        with telemetry.following(_unsampled()):
            return answer_lines(rows, await client.predict(command))
    except MillraceError as error:
        if error.kind in PASSING or error.kind is Kind.NOT_FOUND:
            raise BatchStopped(error) from error
        if len(rows) == 1:
            return [error_line(rows[0], error)]
    return [line for row in rows for line in await _predict(batch, task, [row], client)]


def _unsampled() -> str:
    """The batch's trace, without a span for each of its thousands of requests."""
    current = telemetry.current_traceparent()
    return f"{current[:-2]}{UNSAMPLED}" if current else ""


async def _keep_part(job: Job, batch: Batch, part: Part, ports: Ports) -> Batch:
    """Counts the part, if the lease still holds. Raises LostLease."""
    async with ports.store.transaction() as tx:
        current = await _current(tx, batch.tenant, batch.id)
        if current.ended:
            raise LostLease(job=job.id)
        await tx.renew_job(job, ports.clock.now(), ports.batching.policy.lease_seconds)
        grown = with_part(current, part)
        await tx.save_part(grown, part)
        return grown


async def _keep_end(job: Job, ended: Outcome | BatchFailure, ports: Ports) -> None:
    """The batch's end and the job's are kept together, or not at all."""
    async with ports.store.transaction() as tx:
        batch = await _current(tx, job.tenant, job.payload["batch"])
        if not batch.ended:
            command = Succeed(ended) if isinstance(ended, Outcome) else Fail(ended)
            reason = "every row has its line" if isinstance(ended, Outcome) else ended.reason
            batch = await _follow(tx, batch, command, ports, reason=reason)
        await tx.finish_job(job, JOB_DONE if batch.outcome is not None else JOB_FAILED)
    BATCHES_ENDED.add(1, tenant=batch.tenant, status=batch.status)
    await ports.batching.results.tidy(batch)


async def _give_back(job: Job, ports: Ports) -> None:
    """This process is told to stop, or the lease is lost: the next one may go on at once."""
    with suppress(MillraceError):
        try:
            async with ports.store.transaction() as tx:
                await tx.release_job(job, ports.clock.now())
        except LostLease:
            await _tidy(job, ports)


async def _tidy(job: Job, ports: Ports) -> None:
    """A batch that was cancelled under its worker leaves nothing behind."""
    async with ports.store.reading() as tx:
        batch = await tx.batch(job.tenant, job.payload["batch"])
    if batch is not None and batch.ended:
        await ports.batching.results.tidy(batch)


async def _follow(tx: Tx, batch: Batch, command: Command, ports: Ports, *, reason: str, actor: str = ACTOR) -> Batch:
    """Decides, and keeps what follows."""
    facts = decide(batch, command)
    for fact in facts:
        batch = evolve(batch, fact, ports.clock.now())
    await tx.save_batch(batch, facts, actor=actor, reason=reason)
    return batch
