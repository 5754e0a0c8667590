"""How a run changes: what was decided is kept with its history, in the caller's transaction."""

from datetime import timedelta
from typing import Final

from services.kit.persistence.unit_of_work import Job, LostLease
from services.trainer.domain.runs import Command, Run, RunFailed, decide, evolve
from services.trainer.errors import UnknownRun
from services.trainer.ports import Ports, Tx

ACTOR: Final = "trainer"


async def follow(tx: Tx, run: Run, command: Command, ports: Ports, *, reason: str, actor: str = ACTOR) -> Run:
    """Decides, and keeps what follows. Raises what `decide` raises."""
    now = ports.clock.now()
    facts = decide(run, command)
    for fact in facts:
        run = evolve(run, fact, now)
        if isinstance(fact, RunFailed):
            reason = fact.failure.reason
    if facts:
        await tx.save_run(run, facts, actor=actor, reason=reason, at=now)
    return run


async def leased_run(tx: Tx, job: Job, ports: Ports) -> Run:
    """The job's run, locked, with its lease renewed. Raises LostLease when it has ended or another worker has it."""
    run = await tx.run(job.tenant, job.payload["run"])
    if run is None or run.ended:
        raise LostLease(job=job.id)
    await tx.renew_job(job, ports.clock.now(), ports.lease_seconds)
    return run


async def put_back(tx: Tx, job: Job, ports: Ports, *, pause_seconds: float = 0.0) -> None:
    """Gives the job back, to be leased again after the pause. Raises LostLease."""
    await tx.release_job(job, ports.clock.now() + timedelta(seconds=pause_seconds))


async def run_of(tx: Tx, tenant: str, name: str) -> Run:
    """Raises UnknownRun."""
    run = await tx.run(tenant, name)
    if run is None:
        raise UnknownRun(run=name)
    return run
