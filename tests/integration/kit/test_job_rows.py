"""Jobs: leased with a fence, by one worker at a time, on both databases."""

import asyncio
from datetime import timedelta

import pytest

from services.kit.jobs.worker import Worker
from services.kit.messaging.envelope import StoredEventRef
from services.kit.persistence.sql.tables import JobRow
from services.kit.persistence.unit_of_work import JOB_CANCELLED, JOB_DONE, JOB_FAILED, Job, JobRequest, LostLease
from tests.integration.kit.services import NOON, KitService, service_at


async def enqueue(service: KitService, *names: str, kind: str = "train") -> None:
    for name in names:
        async with service.store.transaction() as tx:
            await tx.enqueue_job(
                JobRequest(name, kind, {"n": name}, "acme"), cause=StoredEventRef("e-1", "s-1", "acme")
            )


async def lease(service: KitService, after: float = 0, *, owner: str = "w") -> Job | None:
    async with service.store.transaction() as tx:
        return await tx.lease_job("train", owner, NOON + timedelta(seconds=after), 30)


async def held(service: KitService, after: float = 0) -> Job:
    job = await lease(service, after)
    assert job is not None
    return job


async def test_the_oldest_waiting_job_of_the_kind_is_leased_with_all_that_was_requested(service: KitService) -> None:
    await enqueue(service, "j-1", "j-2")
    await enqueue(service, "j-0", kind="other")
    await enqueue(service, "j-1")  # asked for again: it is the same job
    first, second = await held(service), await held(service)
    assert (first.id, second.id, await lease(service)) == ("j-1", "j-2", None)
    assert (first.kind, first.payload, first.tenant, first.fence, first.attempt) == (
        "train",
        {"n": "j-1"},
        "acme",
        1,
        1,
    )
    assert first.cause == StoredEventRef("e-1", "s-1", "acme")


async def test_a_lease_that_ran_out_passes_on_with_a_higher_fence_and_the_former_holder_can_write_nothing(
    service: KitService,
) -> None:
    await enqueue(service, "j-1")
    former = await held(service)
    assert await lease(service, 29.9) is None
    current = await held(service, 30)
    assert (current.id, current.fence, current.attempt) == ("j-1", 2, 2)
    for write in ("renew", "release", "finish"):
        with pytest.raises(LostLease, match="j-1"):  # noqa: PT012 - the block is the transaction
            async with service.store.transaction() as tx:
                if write == "renew":
                    await tx.renew_job(former, NOON, 30)
                elif write == "release":
                    await tx.release_job(former, NOON)
                else:
                    await tx.finish_job(former, JOB_DONE)
    async with service.store.transaction() as tx:
        await tx.finish_job(current, JOB_DONE)
    assert [(row.state, row.fence) for row in await service.rows(JobRow)] == [("done", 2)]


async def test_renewing_keeps_the_lease(service: KitService) -> None:
    await enqueue(service, "j-1")
    job = await held(service)
    async with service.store.transaction() as tx:
        await tx.renew_job(job, NOON + timedelta(seconds=25), 30)
    assert await lease(service, 54) is None
    assert (await held(service, 55)).fence == 2


async def test_a_job_given_back_waits_until_it_is_due(service: KitService) -> None:
    await enqueue(service, "j-1")
    job = await held(service)
    async with service.store.transaction() as tx:
        await tx.release_job(job, NOON + timedelta(seconds=5))
    assert await lease(service, 4) is None
    assert (await held(service, 5)).fence == 2


@pytest.mark.parametrize("state", [JOB_DONE, JOB_FAILED, JOB_CANCELLED])
async def test_a_finished_job_stays_finished(service: KitService, state: str) -> None:
    await enqueue(service, "j-1")
    job = await held(service)
    async with service.store.transaction() as tx:
        await tx.finish_job(job, state)
    assert await lease(service, 1_000) is None
    with pytest.raises(LostLease):
        async with service.store.transaction() as tx:
            await tx.finish_job(job, JOB_DONE)
    async with service.store.transaction() as tx:
        assert not await tx.cancel_job("j-1")


async def test_cancelling_takes_a_job_from_whoever_holds_it(service: KitService) -> None:
    await enqueue(service, "j-1", "j-2")
    job = await held(service)
    async with service.store.transaction() as tx:
        assert await tx.cancel_job("j-1")
        assert await tx.cancel_job("j-2")
        assert not await tx.cancel_job("j-2")
        assert not await tx.cancel_job("unknown")
    with pytest.raises(LostLease):
        async with service.store.transaction() as tx:
            await tx.renew_job(job, NOON, 30)
    assert await lease(service, 1_000) is None


async def test_workers_of_several_processes_never_get_one_job_twice(service: KitService, database_url: str) -> None:
    await enqueue(service, *(f"j-{number:02}" for number in range(40)))
    others = [service_at(database_url) for _ in range(3)]
    for other in others:
        await other.database.open()
    taken: list[tuple[str, int]] = []

    async def take(index: KitService, owner: str) -> None:
        while job := await lease(index, owner=owner):
            taken.append((job.id, job.fence))

    try:
        await asyncio.gather(*(take(index, f"w-{n}") for index in (service, *others) for n in range(2)))
    finally:
        for other in others:
            await other.database.close()
    assert sorted(taken) == [(f"j-{number:02}", 1) for number in range(40)]


async def test_a_worker_finishes_a_job_in_the_transaction_that_keeps_its_outcome(service: KitService) -> None:
    await enqueue(service, "j-1")

    async def work(job: Job) -> None:
        async with service.store.transaction() as tx:
            await tx.finish_job(job, JOB_DONE)

    one = Worker(service.store, work, kind="train", owner="w", lease_seconds=30, clock=service.clock)
    assert await one.run_one()
    assert not await one.run_one()
    assert [row.state for row in await service.rows(JobRow)] == [JOB_DONE]
