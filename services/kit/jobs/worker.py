"""The worker: leases jobs one by one, renews the lease while it works, and gives up what it has lost."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from services.contracts.errors import MillraceError
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.persistence.unit_of_work import Job, LostLease, UnitOfWork

IDLE_SECONDS: Final = 1.0


class JobStore(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]: ...


class Worker:
    """Runs `work(job)` for every job of one kind; a part of a service.

    `work` finishes or releases the job itself, in the transaction that keeps its outcome. When it raises,
    the lease runs out and the job is leased again. When the lease is lost, `work` is cancelled.
    """

    def __init__(
        self,
        store: JobStore,
        work: Callable[[Job], Awaitable[None]],
        *,
        kind: str,
        owner: str,
        lease_seconds: float,
        clock: Clock,
    ) -> None:
        self._store = store
        self._work = work
        self._kind = kind
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._clock = clock
        self.wake = asyncio.Event()

    async def run(self) -> None:
        while True:
            self.wake.clear()
            try:
                worked = await self.run_one()
            except MillraceError as error:
                logger.warning("the worker for %s pauses: %s", self._kind, error)
                await self._clock.sleep(IDLE_SECONDS)
                continue
            if not worked:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), IDLE_SECONDS)

    async def run_one(self) -> bool:
        """Leases and works one job; False when none is due."""
        async with self._store.transaction() as tx:
            job = await tx.lease_job(self._kind, self._owner, self._clock.now(), self._lease_seconds)
        if job is None:
            return False
        with telemetry.JOBS_RUNNING.one(tenant=job.tenant, kind=self._kind):
            await self._work_under_lease(job)
        return True

    async def _work_under_lease(self, job: Job) -> None:
        with telemetry.span(f"job {self._kind}", parent=job.trace, attributes={"millrace.job.id": job.id}):
            working = asyncio.ensure_future(self._work(job))
            renewing = asyncio.ensure_future(self._keep(job))
            try:
                await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (working, renewing):
                    if not task.done():
                        task.cancel()
                outcome = (await asyncio.gather(working, renewing, return_exceptions=True))[0]
        if isinstance(outcome, LostLease | asyncio.CancelledError):
            logger.warning("job %s passed to another worker or was cancelled", job.id)
        elif isinstance(outcome, BaseException):
            logger.error("job %s broke off and will be leased again", job.id, exc_info=outcome)

    async def _keep(self, job: Job) -> None:
        """Renews until the lease is lost. A database that is away is asked again: the lease may outlive it."""
        while True:
            await self._clock.sleep(self._lease_seconds / 3)
            try:
                async with self._store.transaction() as tx:
                    await tx.renew_job(job, self._clock.now(), self._lease_seconds)
            except LostLease:
                return
            except MillraceError as error:
                logger.warning("the lease on %s could not be renewed: %s", job.id, error)
