"""Executions: an attempt is started or attached to, and what nobody drives any more is ended."""

from datetime import datetime
from typing import Final

from services.contracts.errors import MillraceError
from services.contracts.events import DatasetReady
from services.kit.core.log import logger
from services.kit.persistence.unit_of_work import JOB_CANCELLED, Job, LostLease, Timer
from services.trainer.domain.runs import FixSpec, Run, StartAttempt, has_abandoned
from services.trainer.domain.spec import Handle, TrainingSpec
from services.trainer.handlers.transitions import follow, leased_run
from services.trainer.ports import Ports, Tx

END_EXECUTION: Final = "execution"
_BEGINNING: Final = "1970-01-01T00:00:00+00:00"


async def start_or_attach(job: Job, ports: Ports) -> tuple[Run, Handle] | None:
    """The run and the execution to follow: the one that goes on, or a new attempt. None when the run has ended.

    Raises UnknownExecution when the one that went on has left no trace, a kind of UnusableData for a data set that
    cannot be read, LostLease, and Unavailable.
    """
    async with ports.store.transaction() as tx:
        run = await tx.run(job.tenant, job.payload["run"])
        if run is None or run.ended:
            await tx.finish_job(job, JOB_CANCELLED)
            return None
    if run.executing and run.handle is not None:
        await ports.executor.attach(run.handle)
        logger.info("attached to %s, which goes on", run.handle.execution)
        return run, run.handle
    spec = run.spec or await _fix_spec(job, run, ports)
    handle = await ports.executor.submit(spec, run.attempt + 1)
    try:
        async with ports.store.transaction() as tx:
            run = await leased_run(tx, job, ports)
            run = await follow(tx, run, StartAttempt(handle), ports, reason=f"attempt {handle.attempt}")
    except LostLease:
        await _end_if_abandoned(handle, ports)
        raise
    return run, handle


async def _fix_spec(job: Job, run: Run, ports: Ports) -> TrainingSpec:
    """What every attempt depends on is fixed by the first one: the data, the labelled traffic, the champion."""
    announced = DatasetReady.model_validate(job.payload["dataset"])
    champion = await ports.champions.champion(run.tenant, run.model)
    data_uri = await ports.inputs.data(run.tenant, announced.uri)
    since, until = (datetime.fromisoformat(job.payload.get(key, _BEGINNING)) for key in ("since", "until"))
    async with ports.store.reading() as tx:
        examples = await tx.labelled(run.tenant, run.model, since, until, ports.retraining.most_examples)
    spec = TrainingSpec(
        **ports.training.model_dump(),
        run=run.id,
        tenant=run.tenant,
        model=announced.model,
        dataset=announced.dataset,
        data_uri=data_uri,
        format=announced.format,
        content_hash=announced.content_hash,
        columns=announced.columns,
        feedback_uri=await ports.inputs.write_examples(run.id, examples) if examples else None,
        recipe=announced.recipe,
        champion=champion,
        artifact_store=ports.inputs.artifact_store(),
        working_uri=ports.inputs.working_uri(run.id),
    )
    async with ports.store.transaction() as tx:
        run = await leased_run(tx, job, ports)
        run = await follow(tx, run, FixSpec(spec), ports, reason="the first attempt")
    return run.spec or spec


async def schedule_end(tx: Tx, handle: Handle, ports: Ports) -> None:
    """Ends the execution once this transaction is kept, whatever becomes of this process meanwhile."""
    payload = {"handle": handle.model_dump(mode="json")}
    key = f"{END_EXECUTION}/{handle.execution}"
    await tx.schedule(Timer(key, END_EXECUTION, ports.clock.now(), payload, handle.tenant))


async def end_execution(timer: Timer, ports: Ports) -> None:
    """First the work, then the timer: whoever is killed between the two leaves it to the next one."""
    await ports.executor.cancel(Handle.model_validate(timer.payload["handle"]))
    async with ports.store.transaction() as tx:
        await tx.take_timer(timer)


async def end_orphans(ports: Ports) -> int:
    """How many executions nobody drives any more: their run is gone, has ended, or is at another attempt."""
    ended = 0
    for handle in await ports.executor.executions():
        ended += await _end_if_abandoned(handle, ports)
    return ended


class OrphanWatch:
    """Looks for orphans at the start and every so often; a part of a service."""

    def __init__(self, ports: Ports, every_seconds: float) -> None:
        self._ports = ports
        self._every_seconds = every_seconds

    async def run(self) -> None:
        while True:
            try:
                await end_orphans(self._ports)
            except MillraceError as error:
                logger.warning("executions that nobody drives are looked for later: %s", error)
            await self._ports.clock.sleep(self._every_seconds)


async def _end_if_abandoned(handle: Handle, ports: Ports) -> bool:
    async with ports.store.reading() as tx:
        run = await tx.run(handle.tenant, handle.run)
    if run is not None and not has_abandoned(run, handle):
        return False
    logger.warning("%s belongs to no run any more, and is ended", handle.execution)
    await ports.executor.cancel(handle)
    return True
