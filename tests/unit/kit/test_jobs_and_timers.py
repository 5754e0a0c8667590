"""The worker and the timer loop on a virtual clock, with the rows kept in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.contracts.errors import Invalid, Unavailable
from services.kit.core.clock import VirtualClock
from services.kit.jobs.timers import TimerLoop
from services.kit.jobs.worker import Worker
from services.kit.persistence.unit_of_work import JOB_DONE, Job, LostLease, Timer
from tests.unit.kit.spans import Spans, trace_of

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@dataclass
class OneJob:
    """A store with a single job; `UnitOfWork` as far as the worker asks for it."""

    clock: VirtualClock
    fence: int = 0
    due: datetime | None = None
    state: str = "waiting"
    away: int = 0
    renewed: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        if self.away:
            self.away -= 1
            raise Unavailable(what="the database")
        yield self

    async def lease_job(self, kind: str, owner: str, now: datetime, lease_seconds: float) -> Job | None:
        if self.state in {"done", "cancelled"} or (self.due is not None and now < self.due):
            return None
        self.fence += 1
        self.state, self.due = "running", now + timedelta(seconds=lease_seconds)
        return Job("job-1", kind, {}, "default", self.fence, self.fence, TRACE)

    async def renew_job(self, job: Job, now: datetime, lease_seconds: float) -> None:
        self._held(job)
        self.renewed.append(self.clock.monotonic())
        self.due = now + timedelta(seconds=lease_seconds)

    async def finish_job(self, job: Job, state: str) -> None:
        self._held(job)
        self.state = state

    def _held(self, job: Job) -> None:
        if job.fence != self.fence or self.state != "running":
            raise LostLease(job=job.id)


def worker(store: OneJob, work: Callable[[Job], Awaitable[None]]) -> Worker:
    return Worker(store, work, kind="train", owner="w-1", lease_seconds=30.0, clock=store.clock)


async def pass_time(clock: VirtualClock, seconds: float) -> None:
    for _ in range(round(seconds)):
        for _ in range(5):
            await asyncio.sleep(0)
        await clock.advance(1.0)
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def store() -> OneJob:
    return OneJob(VirtualClock())


async def test_the_lease_is_renewed_three_times_in_its_length_while_the_work_lasts(store: OneJob) -> None:
    async def work(job: Job) -> None:
        await store.clock.sleep(95)
        await store.finish_job(job, JOB_DONE)

    task = asyncio.create_task(worker(store, work).run_one())
    await pass_time(store.clock, 100)
    assert await task is True
    assert store.renewed == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    assert store.state == "done"
    assert await worker(store, work).run_one() is False


async def test_work_whose_lease_is_lost_is_cancelled(store: OneJob) -> None:
    ended: list[str] = []

    async def work(job: Job) -> None:
        try:
            await store.clock.sleep(1_000)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    task = asyncio.create_task(worker(store, work).run_one())
    await pass_time(store.clock, 12)
    store.state = "cancelled"
    await pass_time(store.clock, 10)
    assert await task is True
    assert ended == ["cancelled"]
    assert store.state == "cancelled"


async def test_a_job_that_breaks_off_is_leased_again_with_a_higher_fence_once_its_lease_ran_out(store: OneJob) -> None:
    fences: list[int] = []

    async def work(job: Job) -> None:
        fences.append(job.fence)
        if job.fence == 1:
            raise RuntimeError("it broke")
        await store.finish_job(job, JOB_DONE)

    assert await worker(store, work).run_one() is True
    assert await worker(store, work).run_one() is False
    await store.clock.advance(30)
    assert await worker(store, work).run_one() is True
    assert (fences, store.state) == ([1, 2], "done")


async def test_the_one_that_was_thought_dead_changes_nothing(store: OneJob) -> None:
    stale: list[Job] = []

    async def work(job: Job) -> None:
        stale.append(job)

    await worker(store, work).run_one()
    await store.clock.advance(30)
    await worker(store, work).run_one()
    with pytest.raises(LostLease):
        await store.finish_job(stale[0], JOB_DONE)


async def test_a_database_that_is_away_for_a_second_costs_no_lease(store: OneJob) -> None:
    async def work(job: Job) -> None:
        await store.clock.sleep(25)
        await store.finish_job(job, JOB_DONE)

    task = asyncio.create_task(worker(store, work).run_one())
    await pass_time(store.clock, 5)
    store.away = 1
    await pass_time(store.clock, 25)
    assert await task is True
    assert (store.renewed, store.state) == ([20.0], "done")


async def test_a_worker_that_is_stopped_stops_its_work_and_waits_out_a_database_that_is_away(store: OneJob) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(job: Job) -> None:
        begun.set()
        try:
            await store.clock.sleep(1_000)
        finally:
            ended.set()

    store.away = 2
    task = asyncio.create_task(worker(store, work).run())
    await pass_time(store.clock, 3)
    assert begun.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_job_runs_in_the_trace_that_requested_it(store: OneJob, spans: Spans) -> None:
    async def work(job: Job) -> None:
        await store.finish_job(job, JOB_DONE)

    await worker(store, work).run_one()
    assert trace_of(spans.only("job train")) == "0af7651916cd43dd8448eb211c80319c"


class TimerRows:
    """`DueTimers` from a list."""

    def __init__(self, *timers: Timer) -> None:
        self.rows = list(timers)
        self.away = 0

    async def due_timers(self, now: datetime, limit: int) -> list[Timer]:
        if self.away:
            self.away -= 1
            raise Unavailable(what="the database")
        return sorted((row for row in self.rows if row.due <= now), key=lambda row: row.due)[:limit]


def timer(key: str, due: datetime, kind: str = "bake") -> Timer:
    return Timer(key, kind, due, trace=TRACE)


async def test_due_timers_are_handled_the_earliest_first_in_their_own_trace(spans: Spans) -> None:
    clock, seen = VirtualClock(), list[str]()
    start = clock.now()
    rows = TimerRows(timer("b", start + timedelta(seconds=2)), timer("a", start + timedelta(seconds=1)))
    rows.rows.append(timer("c", start + timedelta(seconds=3)))

    async def handle(due: Timer) -> None:
        seen.append(due.key)
        rows.rows.remove(due)

    loop = TimerLoop(rows, {"bake": handle}, clock)
    assert await loop.run_due() == 0
    await clock.advance(2)
    assert await loop.run_due() == 2
    assert seen == ["a", "b"]
    assert {trace_of(span) for span in spans.named("timer bake")} == {"0af7651916cd43dd8448eb211c80319c"}


async def test_a_timer_whose_handler_refuses_is_tried_again_and_holds_up_no_other() -> None:
    clock, seen = VirtualClock(), list[str]()
    rows = TimerRows(timer("bad", clock.now()), timer("good", clock.now()))

    async def handle(due: Timer) -> None:
        seen.append(due.key)
        if seen.count("bad") < 2 and due.key == "bad":
            raise Invalid(problem="not yet")
        rows.rows.remove(due)

    task = asyncio.create_task(TimerLoop(rows, {"bake": handle}, clock).run())
    await pass_time(clock, 2)
    task.cancel()
    assert seen == ["bad", "good", "bad"]
    assert rows.rows == []


async def test_timers_wait_while_the_database_is_away() -> None:
    clock, seen = VirtualClock(), list[Timer]()
    rows = TimerRows(timer("a", clock.now()))
    rows.away = 3

    async def handle(due: Timer) -> None:
        seen.append(replace(due))
        rows.rows.clear()

    task = asyncio.create_task(TimerLoop(rows, {"bake": handle}, clock).run())
    await pass_time(clock, 4)
    task.cancel()
    assert len(seen) == 1
