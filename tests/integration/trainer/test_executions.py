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
from services.trainer.handlers import asking, running, showing
from services.trainer.handlers.executions import end_orphans
from tests.integration.trainer.room import DATASET, KILLED, Room, opened, topics


@pytest.fixture
async def room(database_url: str, tmp_path: Path) -> AsyncIterator[Room]:
    async with opened(database_url, tmp_path) as made:
        yield made


async def the_run(room: Room) -> Run:
    (run,) = await showing.list_runs("default", room.ports, RunFilter(), before="", limit=10)
    return run


async def facts(room: Room) -> list[str]:
    async with room.store.reading() as tx:
        return [entry.kind async for entry in verified(tx)]


def policy(room: Room, **changes: Any) -> None:
    room.ports = replace(room.ports, execution=room.ports.execution.model_copy(update=changes))


async def begin(room: Room) -> "asyncio.Task[bool]":
    """A worker that follows the run, whose work goes on until it is ended."""
    room.executor.held = True
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    return await follow(room)


async def follow(room: Room) -> "asyncio.Task[bool]":
    """A worker that has polled the execution, and has mirrored what it reported."""
    before, worker = room.executor.polls, asyncio.create_task(room.work())

    async def is_followed() -> bool:
        return room.executor.polls > before + 1 and (await the_run(room)).status is RunStatus.EXPORTING

    await passes(room, is_followed)
    return worker


async def passes(room: Room, condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(500):
        if await condition():
            return
        await asyncio.sleep(0.01)
        await room.clock.advance(0.2)
    pytest.fail("it did not come to pass")


async def ended(room: Room, worker: "asyncio.Task[bool]") -> None:
    async def is_done() -> bool:
        return worker.done()

    await passes(room, is_done)
    await worker


async def stop(worker: "asyncio.Task[bool]") -> None:
    """As a service that is asked to stop does."""
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def test_a_service_that_stops_leaves_the_work_going_and_the_next_one_attaches(room: Room) -> None:
    await stop(await begin(room))
    (execution,) = room.executor.started
    assert (await the_run(room)).executing
    worker = await follow(room)
    room.executor.end(execution)
    await ended(room, worker)
    run = await the_run(room)
    assert (run.status, run.attempt, run.failed_attempts) == (RunStatus.SUCCEEDED, 1, 0)
    assert (list(room.executor.started), room.executor.cancelled) == ([execution], [])
    assert topics(await room.told()) == ["model.trained"]


async def test_what_was_mirrored_before_is_not_mirrored_again(room: Room) -> None:
    await stop(await begin(room))
    before = await facts(room)
    worker = await follow(room)
    (execution,) = room.executor.started
    room.executor.end(execution)
    await ended(room, worker)
    assert await facts(room) == [*before, "RunSucceeded"]


async def test_a_service_that_was_killed_is_followed_by_the_next_once_its_lease_ends(room: Room) -> None:
    silent = await begin(room)
    (execution,) = room.executor.started
    room.executor.end(execution)
    # as if it had been killed: neither the lease is given back, nor is the outcome taken
    async with room.store.transaction() as tx:
        job = await tx.lease_job(running.RUN_JOB, "other", room.clock.now().replace(year=2100), 10)
    assert job is not None
    await running.work_run(job, room.ports)
    await ended(room, silent)
    assert topics(await room.told()) == ["model.trained"]
    assert (list(room.executor.started), room.executor.cancelled) == ([execution], [])


async def test_where_the_policy_says_so_a_service_that_stops_ends_the_work_with_its_checkpoint(room: Room) -> None:
    policy(room, on_shutdown=OnShutdown.CANCEL)
    await stop(await begin(room))
    run = await the_run(room)
    assert room.executor.cancelled == [f"{run.id}.1"]
    assert (run.status, run.executing, run.failed_attempts) == (RunStatus.QUEUED, False, 0)
    room.executor.held = False
    assert await room.work()
    run = await the_run(room)
    assert (run.status, run.attempt) == (RunStatus.SUCCEEDED, 2)
    assert topics(await room.told()) == ["model.trained"]


async def test_an_attempt_that_was_submitted_but_not_written_down_is_found_again(room: Room) -> None:
    async def killed() -> None:
        room.executor.submitted = None
        raise RuntimeError("killed between the executor and the database")

    room.executor.submitted = killed
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    assert ((await the_run(room)).executing, len(room.executor.started)) == (False, 1)
    await room.clock.advance(11)
    await room.work()
    assert (len(room.executor.specs), topics(await room.told())) == (1, ["model.trained"])


async def test_a_run_that_is_cancelled_while_it_is_being_submitted_leaves_no_work_behind(room: Room) -> None:
    async def cancel() -> None:
        run = (await the_run(room)).id
        await running.cancel_run("default", run, room.ports, actor="admin:1", reason="not needed")

    room.executor.submitted, room.executor.held = cancel, True
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    assert room.executor.cancelled == [f"{(await the_run(room)).id}.1"]
    assert await room.told() == []


async def test_a_cancelled_run_is_ended_even_if_the_executor_was_away_at_first(room: Room) -> None:
    await stop(await begin(room))
    run, cancel = await the_run(room), room.executor.cancel

    async def away(handle: Handle) -> None:
        raise Unavailable(what="the executor")

    room.executor.cancel = away  # type: ignore[method-assign]
    await running.cancel_run("default", run.id, room.ports, actor="admin:1", reason="not needed")
    await room.tick(1)
    room.executor.cancel = cancel  # type: ignore[method-assign]
    assert room.executor.cancelled == []
    await room.tick(1)
    assert room.executor.cancelled == [f"{run.id}.1"]


async def test_work_that_shows_no_progress_is_ended_and_tried_again(room: Room) -> None:
    policy(room, stall_seconds=60.0)
    worker = await begin(room)
    await ended(room, worker)
    run = await the_run(room)
    assert room.executor.cancelled == [f"{run.id}.1"]
    assert (run.status, run.failure and run.failure.code, run.failed_attempts) == (RunStatus.QUEUED, "stalled", 1)


async def test_work_that_hung_while_nobody_looked_is_ended_by_the_service_that_attaches(room: Room) -> None:
    await stop(await begin(room))
    policy(room, stall_seconds=60.0)
    await room.clock.advance(120)
    await room.work()
    run = await the_run(room)
    assert room.executor.cancelled == [f"{run.id}.1"]
    assert run.failure is not None
    assert (run.failure.code, run.failure.stage) == ("stalled", "export")


async def test_work_that_takes_too_long_fails_for_good(room: Room) -> None:
    policy(room, run_seconds=60.0)
    worker = await begin(room)
    for made in room.executor.started.values():
        made.active_at = made.active_at.replace(year=2100)  # it never stalls
    await ended(room, worker)
    (told,) = await room.told()
    assert isinstance(told.event, TrainingFailed)
    assert (told.event.code, told.event.stage, told.event.retryable) == ("too_long", "publish", False)


async def test_a_result_that_comes_just_when_the_work_is_ended_counts(room: Room) -> None:
    policy(room, stall_seconds=60.0)
    worker = await begin(room)

    async def too_late(handle: Handle) -> None:
        room.executor.end(handle.execution)

    room.executor.cancel = too_late  # type: ignore[method-assign]
    await ended(room, worker)
    assert topics(await room.told()) == ["model.trained"]


async def test_work_of_which_no_trace_is_left_is_started_anew(room: Room) -> None:
    await stop(await begin(room))
    room.executor.started.clear()
    room.executor.held = False
    await room.work()
    run = await the_run(room)
    assert (run.status, run.failure and run.failure.code) == (RunStatus.QUEUED, "lost")
    await room.clock.advance(6)
    await room.work()
    assert ((await the_run(room)).attempt, topics(await room.told())) == (2, ["model.trained"])


async def test_orphans_are_ended_and_nothing_else(room: Room) -> None:
    worker = await begin(room)
    run = await the_run(room)
    spec = room.executor.specs[0]
    room.executor.submitted = None
    unknown = await room.executor.submit(spec.model_copy(update={"run": "run-unknown"}), 1)
    following = await room.executor.submit(spec, 2)  # a service is about to write it down
    assert await end_orphans(room.ports) == 1
    assert room.executor.cancelled == [unknown.execution]
    room.executor.end(following.execution)
    await running.cancel_run("default", run.id, room.ports, actor="admin:1", reason="not needed")
    assert await end_orphans(room.ports) == 1
    assert room.executor.cancelled == [unknown.execution, f"{run.id}.1"]
    await ended(room, worker)


async def test_retries_are_counted_by_failures_and_not_by_leases(room: Room) -> None:
    await stop(await begin(room))
    for _ in range(3):
        await stop(await follow(room))
    (execution,) = room.executor.started
    room.executor.endings = [KILLED]
    room.executor.end(execution)
    await room.work()
    run = await the_run(room)
    assert (run.status, run.failed_attempts, run.attempt) == (RunStatus.QUEUED, 1, 1)
