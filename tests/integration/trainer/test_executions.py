"""What executes a run outlives the worker that follows it: it is attached to, never doubled, and ended in the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.contracts.errors import Unavailable
from services.contracts.events import TrainingFailed
from services.kit.persistence.sql.history import verified
from services.trainer.domain.runs import Run, RunFilter, RunStatus
from services.trainer.domain.spec import Handle, OnShutdown
from services.trainer.handlers import attempts, lookup, runs
from services.trainer.handlers.executions import end_orphans
from tests.integration.trainer.service import DATASET, KILLED, TrainerFixture, opened, topics


@pytest.fixture
async def trainer(database_url: str, tmp_path: Path) -> AsyncIterator[TrainerFixture]:
    async with opened(database_url, tmp_path) as made:
        yield made


async def the_run(trainer: TrainerFixture) -> Run:
    (run,) = await lookup.list_runs("default", trainer.ports, RunFilter(), before="", limit=10)
    return run


async def facts(trainer: TrainerFixture) -> list[str]:
    async with trainer.store.reading() as tx:
        return [entry.kind async for entry in verified(tx)]


def policy(trainer: TrainerFixture, **changes: Any) -> None:
    trainer.ports = replace(trainer.ports, execution=trainer.ports.execution.model_copy(update=changes))


async def begin(trainer: TrainerFixture) -> "asyncio.Task[bool]":
    """A worker that follows the run, whose work goes on until it is ended."""
    trainer.executor.held = True
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    return await follow(trainer)


async def follow(trainer: TrainerFixture) -> "asyncio.Task[bool]":
    """A worker that has polled the execution, and has mirrored what it reported."""
    before, worker = trainer.executor.polls, asyncio.create_task(trainer.work())

    async def is_followed() -> bool:
        return trainer.executor.polls > before + 1 and (await the_run(trainer)).status is RunStatus.EXPORTING

    await passes(trainer, is_followed)
    return worker


async def passes(trainer: TrainerFixture, condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(500):
        if await condition():
            return
        await asyncio.sleep(0.01)
        await trainer.clock.advance(0.2)
    pytest.fail("it did not come to pass")


async def ended(trainer: TrainerFixture, worker: "asyncio.Task[bool]") -> None:
    async def is_done() -> bool:
        return worker.done()

    await passes(trainer, is_done)
    await worker


async def stop(worker: "asyncio.Task[bool]") -> None:
    """As a service that is asked to stop does."""
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def test_a_service_that_stops_leaves_the_work_going_and_the_next_one_attaches(trainer: TrainerFixture) -> None:
    await stop(await begin(trainer))
    (execution,) = trainer.executor.started
    assert (await the_run(trainer)).executing
    worker = await follow(trainer)
    trainer.executor.end(execution)
    await ended(trainer, worker)
    run = await the_run(trainer)
    assert (run.status, run.attempt, run.failed_attempts) == (RunStatus.SUCCEEDED, 1, 0)
    assert (list(trainer.executor.started), trainer.executor.cancelled) == ([execution], [])
    assert topics(await trainer.events()) == ["model.trained"]


async def test_what_was_mirrored_before_is_not_mirrored_again(trainer: TrainerFixture) -> None:
    await stop(await begin(trainer))
    before = await facts(trainer)
    worker = await follow(trainer)
    (execution,) = trainer.executor.started
    trainer.executor.end(execution)
    await ended(trainer, worker)
    assert await facts(trainer) == [*before, "RunSucceeded"]


async def test_a_service_that_was_killed_is_followed_by_the_next_once_its_lease_ends(trainer: TrainerFixture) -> None:
    silent = await begin(trainer)
    (execution,) = trainer.executor.started
    trainer.executor.end(execution)
    # as if it had been killed: neither the lease is given back, nor is the outcome taken
    async with trainer.store.transaction() as tx:
        job = await tx.lease_job(attempts.RUN_JOB, "other", trainer.clock.now().replace(year=2100), 10)
    assert job is not None
    await attempts.work_run(job, trainer.ports)
    await ended(trainer, silent)
    assert topics(await trainer.events()) == ["model.trained"]
    assert (list(trainer.executor.started), trainer.executor.cancelled) == ([execution], [])


async def test_where_the_policy_says_so_a_service_that_stops_ends_the_work_with_its_checkpoint(
    trainer: TrainerFixture,
) -> None:
    policy(trainer, on_shutdown=OnShutdown.CANCEL)
    await stop(await begin(trainer))
    run = await the_run(trainer)
    assert trainer.executor.cancelled == [f"{run.id}.1"]
    assert (run.status, run.executing, run.failed_attempts) == (RunStatus.QUEUED, False, 0)
    trainer.executor.held = False
    assert await trainer.work()
    run = await the_run(trainer)
    assert (run.status, run.attempt) == (RunStatus.SUCCEEDED, 2)
    assert topics(await trainer.events()) == ["model.trained"]


async def test_an_attempt_that_was_submitted_but_not_written_down_is_found_again(trainer: TrainerFixture) -> None:
    async def killed() -> None:
        trainer.executor.submitted = None
        raise RuntimeError("killed between the executor and the database")

    trainer.executor.submitted = killed
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    assert ((await the_run(trainer)).executing, len(trainer.executor.started)) == (False, 1)
    await trainer.clock.advance(11)
    await trainer.work()
    assert (len(trainer.executor.specs), topics(await trainer.events())) == (1, ["model.trained"])


async def test_a_run_that_is_cancelled_while_it_is_being_submitted_leaves_no_work_behind(
    trainer: TrainerFixture,
) -> None:
    async def cancel() -> None:
        run = (await the_run(trainer)).id
        await attempts.cancel_run("default", run, trainer.ports, actor="admin:1", reason="not needed")

    trainer.executor.submitted, trainer.executor.held = cancel, True
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    assert trainer.executor.cancelled == [f"{(await the_run(trainer)).id}.1"]
    assert await trainer.events() == []


async def test_a_cancelled_run_is_ended_even_if_the_executor_was_away_at_first(trainer: TrainerFixture) -> None:
    await stop(await begin(trainer))
    run, cancel = await the_run(trainer), trainer.executor.cancel

    async def away(handle: Handle) -> None:
        raise Unavailable(what="the executor")

    trainer.executor.cancel = away  # type: ignore[method-assign]
    await attempts.cancel_run("default", run.id, trainer.ports, actor="admin:1", reason="not needed")
    await trainer.tick(1)
    trainer.executor.cancel = cancel  # type: ignore[method-assign]
    assert trainer.executor.cancelled == []
    await trainer.tick(1)
    assert trainer.executor.cancelled == [f"{run.id}.1"]


async def test_work_that_shows_no_progress_is_ended_and_tried_again(trainer: TrainerFixture) -> None:
    policy(trainer, stall_seconds=60.0)
    worker = await begin(trainer)
    await ended(trainer, worker)
    run = await the_run(trainer)
    assert trainer.executor.cancelled == [f"{run.id}.1"]
    assert (run.status, run.failure and run.failure.code, run.failed_attempts) == (RunStatus.QUEUED, "stalled", 1)


async def test_work_that_hung_while_nobody_looked_is_ended_by_the_service_that_attaches(
    trainer: TrainerFixture,
) -> None:
    await stop(await begin(trainer))
    policy(trainer, stall_seconds=60.0)
    await trainer.clock.advance(120)
    await trainer.work()
    run = await the_run(trainer)
    assert trainer.executor.cancelled == [f"{run.id}.1"]
    assert run.failure is not None
    assert (run.failure.code, run.failure.stage) == ("stalled", "export")


async def test_work_that_takes_too_long_fails_for_good(trainer: TrainerFixture) -> None:
    policy(trainer, run_seconds=60.0)
    worker = await begin(trainer)
    for made in trainer.executor.started.values():
        made.active_at = made.active_at.replace(year=2100)  # it never stalls
    await ended(trainer, worker)
    (events,) = await trainer.events()
    assert isinstance(events.event, TrainingFailed)
    assert (events.event.code, events.event.stage, events.event.retryable) == ("too_long", "publish", False)


async def test_a_result_that_comes_just_when_the_work_is_ended_counts(trainer: TrainerFixture) -> None:
    policy(trainer, stall_seconds=60.0)
    worker = await begin(trainer)

    async def too_late(handle: Handle) -> None:
        trainer.executor.end(handle.execution)

    trainer.executor.cancel = too_late  # type: ignore[method-assign]
    await ended(trainer, worker)
    assert topics(await trainer.events()) == ["model.trained"]


async def test_work_of_which_no_trace_is_left_is_started_anew(trainer: TrainerFixture) -> None:
    await stop(await begin(trainer))
    trainer.executor.started.clear()
    trainer.executor.held = False
    await trainer.work()
    run = await the_run(trainer)
    assert (run.status, run.failure and run.failure.code) == (RunStatus.QUEUED, "lost")
    await trainer.clock.advance(6)
    await trainer.work()
    assert ((await the_run(trainer)).attempt, topics(await trainer.events())) == (2, ["model.trained"])


async def test_orphans_are_ended_and_nothing_else(trainer: TrainerFixture) -> None:
    worker = await begin(trainer)
    run = await the_run(trainer)
    spec = trainer.executor.specs[0]
    trainer.executor.submitted = None
    unknown = await trainer.executor.submit(spec.model_copy(update={"run": "run-unknown"}), 1)
    following = await trainer.executor.submit(spec, 2)  # a service is about to write it down
    assert await end_orphans(trainer.ports) == 1
    assert trainer.executor.cancelled == [unknown.execution]
    trainer.executor.end(following.execution)
    await attempts.cancel_run("default", run.id, trainer.ports, actor="admin:1", reason="not needed")
    assert await end_orphans(trainer.ports) == 1
    assert trainer.executor.cancelled == [unknown.execution, f"{run.id}.1"]
    await ended(trainer, worker)


async def test_retries_are_counted_by_failures_and_not_by_leases(trainer: TrainerFixture) -> None:
    await stop(await begin(trainer))
    for _ in range(3):
        await stop(await follow(trainer))
    (execution,) = trainer.executor.started
    trainer.executor.endings = [KILLED]
    trainer.executor.end(execution)
    await trainer.work()
    run = await the_run(trainer)
    assert (run.status, run.failed_attempts, run.attempt) == (RunStatus.QUEUED, 1, 1)
