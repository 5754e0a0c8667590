"""The local executor with real processes that train nothing: who lives, who is found again, and who is ended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from services.kit.core.clock import SystemClock
from services.trainer.domain.spec import EXECUTION_VARIABLE, INTERRUPTED, Failure, Handle, RunResult, TrainingSpec
from services.trainer.errors import UnknownExecution
from services.trainer.outbound import processes
from services.trainer.outbound.executor import CannotSubmit, LocalExecutor, LocalPolicy
from services.trainer.outbound.processes import ProcessIdentity, kill_marked, marked
from services.trainer.outbound.workspace import HANDLE_FILE, Workspace
from services.trainer.ports import Execution
from tests.integration.trainer.service import result_of
from tests.waiting import until

CHILD = Path(__file__).parent / "child.py"


class RunHarness:
    """A folder for runs, and executors as one service after another would have them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = f"run-{root.parent.name}-{root.name}".lower()
        self.policy = LocalPolicy(
            threads=1,
            stop_seconds=2.0,
            run_folder_limit=5,
            traces_folder=root / "traces",
            keys_folder=root / "keys",
            command=(sys.executable, str(CHILD)),
        )

    def executor(self, **changes: object) -> LocalExecutor:
        policy = replace(self.policy, **changes)  # type: ignore[arg-type]
        return LocalExecutor(Workspace(self.root / "runs"), policy, SystemClock())

    def spec(self, mode: str = "patient") -> TrainingSpec:
        return TrainingSpec(
            run=self.run, tenant="default", model="m", dataset="d", data_uri="file:///nowhere", base_model=mode,
            artifact_store="file:///store", working_uri=(self.root / "runs" / self.run).as_uri(),
        )  # fmt: skip


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunHarness]:
    made = RunHarness(tmp_path)
    monkeypatch.setenv("CHILD_RESULT", result_of("RUN").model_dump_json())
    monkeypatch.setenv("CHILD_FINISH", str(tmp_path / "finish"))
    yield made
    for attempt in range(1, 4):
        kill_marked(EXECUTION_VARIABLE, f"{made.run}.{attempt}")


def pid_of(handle: Handle) -> int:
    return int(handle.reference["pid"])


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)


async def when(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, condition, what, 60)


async def outcome_of(executor: LocalExecutor, handle: Handle) -> Execution:
    """The first poll that has one."""
    deadline = time.monotonic() + 60
    while (execution := await executor.poll(handle, 0)).outcome is None:
        assert time.monotonic() < deadline, "the execution has no outcome"
        await asyncio.sleep(0.02)
    return execution


async def working(executor: LocalExecutor, handle: Handle) -> Execution:
    """Once it has reported something."""
    deadline = time.monotonic() + 60
    while not (execution := await executor.poll(handle, 0)).progress:
        assert time.monotonic() < deadline, "the execution reports nothing"
        await asyncio.sleep(0.02)
    return execution


async def test_what_was_submitted_once_is_not_started_again(harness: RunHarness) -> None:
    first = await harness.executor().submit(harness.spec(), 1)
    again = await asyncio.gather(*(harness.executor().submit(harness.spec(), 1) for _ in range(4)))
    assert again == [first] * 4
    assert len(list(marked(EXECUTION_VARIABLE, first.execution))) == 1


async def test_services_that_submit_at_the_same_time_start_one(harness: RunHarness) -> None:
    handles = await asyncio.gather(*(harness.executor().submit(harness.spec(), 1) for _ in range(6)))
    assert len({pid_of(handle) for handle in handles}) == 1
    assert len(list(marked(EXECUTION_VARIABLE, handles[0].execution))) == 1


async def test_a_child_whose_service_died_before_writing_it_down_is_found(harness: RunHarness) -> None:
    handle = await harness.executor().submit(harness.spec(), 1)
    (harness.root / "runs" / harness.run / "attempt-1" / HANDLE_FILE).unlink()
    assert await harness.executor().executions() == [handle]
    (harness.root / "runs" / harness.run / "attempt-1" / HANDLE_FILE).unlink()
    assert await harness.executor().submit(harness.spec(), 1) == handle


async def test_progress_is_reported_once_from_where_the_reading_ended(harness: RunHarness) -> None:
    handle = await harness.executor().submit(harness.spec(), 1)
    first = await working(harness.executor(), handle)
    await asyncio.sleep(0.1)
    second = await harness.executor().poll(handle, first.progress_read)
    numbers = [int(step.message.split()[1]) for step in (*first.progress, *second.progress)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(second.progress) > 0
    assert await harness.executor().logs(handle, 1, 1) == [f"00:00:00 train     50% step 2 of many by {pid_of(handle)}"]


async def test_the_child_lives_on_when_the_service_is_killed_and_another_one_attaches(harness: RunHarness) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from tests.integration.trainer.test_local_executor import RunHarness

harness = RunHarness(Path({str(harness.root)!r}))
handle = asyncio.run(harness.executor().submit(harness.spec(), 1))
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": "."}
    service = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], env=environment, check=False)
    assert service.returncode == -signal.SIGKILL
    (handle,) = await harness.executor().executions()
    executor = harness.executor()
    await executor.attach(handle)
    before = await working(executor, handle)
    assert os.getsid(pid_of(handle)) == pid_of(handle)
    await asyncio.sleep(0.1)
    after = await executor.poll(handle, before.progress_read)
    assert after.outcome is None
    assert {step.message.split()[-1] for step in after.progress} == {str(pid_of(handle))}


async def test_a_result_is_the_outcome_whoever_asks(harness: RunHarness) -> None:
    (harness.root / "finish").touch()
    handle = await harness.executor().submit(harness.spec(), 1)
    assert (await outcome_of(harness.executor(), handle)).outcome == RunResult.model_validate(result_of(harness.run))


async def test_a_child_that_was_killed_leaves_a_failure_that_may_pass_and_its_progress(harness: RunHarness) -> None:
    executor = harness.executor()
    handle = await executor.submit(harness.spec(), 1)
    seen = await working(executor, handle)
    os.kill(pid_of(handle), signal.SIGKILL)
    ended = await outcome_of(executor, handle)
    assert isinstance(ended.outcome, Failure)
    assert (ended.outcome.code, ended.outcome.stage, ended.outcome.retryable) == ("killed", "train", True)
    second = await executor.submit(harness.spec(), 2)
    own = await working(executor, second)
    assert own.progress[0].message.startswith("resumed at step")
    assert len(await executor.logs(second, 0, 1000)) > len(seen.progress)
    assert await executor.submit(harness.spec(), 1) == handle  # late, from a service that slept


async def test_a_child_that_ends_without_a_word_is_a_failure_too(harness: RunHarness) -> None:
    handle = await harness.executor().submit(harness.spec("mute"), 1)
    ended = (await outcome_of(harness.executor(), handle)).outcome
    assert isinstance(ended, Failure)
    assert (ended.code, ended.stage, ended.retryable) == ("killed", "prepare", True)


async def test_a_cancelled_child_stops_by_itself_and_was_interrupted(harness: RunHarness) -> None:
    handle = await harness.executor().submit(harness.spec(), 1)
    await working(harness.executor(), handle)
    await harness.executor().cancel(handle)
    ended = (await harness.executor().poll(handle, 0)).outcome
    assert isinstance(ended, Failure)
    assert (ended.code, ended.reason) == (INTERRUPTED, "asked to stop")


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_child_that_is_deaf_or_hangs_is_killed_after_its_time(harness: RunHarness, stopped: bool) -> None:
    executor = harness.executor(stop_seconds=0.3)
    handle = await executor.submit(harness.spec("stubborn"), 1)
    await working(executor, handle)
    if stopped:
        os.kill(pid_of(handle), signal.SIGSTOP)
    await executor.cancel(handle)
    ended = (await executor.poll(handle, 0)).outcome
    assert isinstance(ended, Failure)
    assert (ended.code, ended.stage) == (INTERRUPTED, "train")
    assert list(marked(EXECUTION_VARIABLE, handle.execution)) == []


async def test_cancelling_reaches_all_that_the_child_started(harness: RunHarness) -> None:
    executor = harness.executor()
    handle = await executor.submit(harness.spec("family"), 1)
    await when(lambda: len(list(marked(EXECUTION_VARIABLE, handle.execution))) == 3, "the family is complete")
    await executor.cancel(handle)
    await when(lambda: list(marked(EXECUTION_VARIABLE, handle.execution)) == [], "nobody is left")


async def test_what_a_killed_child_leaves_behind_is_ended_before_its_outcome_is_published(harness: RunHarness) -> None:
    executor = harness.executor()
    handle = await executor.submit(harness.spec("family"), 1)
    await when(lambda: len(list(marked(EXECUTION_VARIABLE, handle.execution))) == 3, "the family is complete")
    os.kill(pid_of(handle), signal.SIGKILL)
    await outcome_of(executor, handle)
    await when(lambda: list(marked(EXECUTION_VARIABLE, handle.execution)) == [], "nobody is left")


async def test_a_recycled_process_id_is_nobody_we_know(harness: RunHarness) -> None:
    executor = harness.executor()
    handle = await executor.submit(harness.spec(), 1)
    await working(executor, handle)
    os.kill(pid_of(handle), signal.SIGKILL)
    await outcome_of(executor, handle)
    stranger = sleeper()
    try:
        recycled = handle.model_copy(update={"reference": handle.reference | {"pid": str(stranger.pid)}})
        ended = (await executor.poll(recycled, 0)).outcome
        assert isinstance(ended, Failure)
        assert ended.code == "killed"
        await executor.cancel(recycled)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_after_a_restart_of_the_machine_the_attempt_was_interrupted(harness: RunHarness) -> None:
    executor = harness.executor()
    handle = await executor.submit(harness.spec(), 1)
    await working(executor, handle)
    os.kill(pid_of(handle), signal.SIGKILL)
    await outcome_of(executor, handle)
    before = handle.model_copy(update={"reference": handle.reference | {"boot": "another"}})
    ended = (await executor.poll(before, 0)).outcome
    assert isinstance(ended, Failure)
    assert (ended.code, ended.reason) == (INTERRUPTED, "the machine was restarted")


async def test_everything_under_way_is_ended_at_once_where_it_must_not_outlive_the_service(harness: RunHarness) -> None:
    executor = harness.executor()
    handle = await executor.submit(harness.spec(), 1)
    await working(executor, handle)
    await executor.end_all()
    assert await executor.executions() == []
    with pytest.raises(CannotSubmit, match="the service stops"):
        await executor.submit(harness.spec(), 2)
    assert not ProcessIdentity.from_reference(handle.reference).lives()


async def test_a_command_that_cannot_be_started_is_a_refusal_and_may_be_mended(harness: RunHarness) -> None:
    with pytest.raises(CannotSubmit, match="No such file"):
        await harness.executor(command=("/nowhere/python",)).submit(harness.spec(), 1)
    handle = await harness.executor().submit(harness.spec(), 1)
    assert (await working(harness.executor(), handle)).outcome is None


async def test_an_execution_without_a_trace_cannot_be_attached_to(harness: RunHarness) -> None:
    handle = await harness.executor().submit(harness.spec("mute"), 1)
    gone = handle.model_copy(update={"working_uri": (harness.root / "elsewhere").as_uri()})
    with pytest.raises(UnknownExecution):
        await harness.executor().attach(gone)
    with pytest.raises(UnknownExecution):
        await harness.executor().attach(handle.model_copy(update={"executor": "kubernetes"}))


async def test_the_child_knows_whose_work_it_does_and_no_key(harness: RunHarness) -> None:
    handle = await harness.executor().submit(harness.spec(), 1)
    with suppress(psutil.AccessDenied):
        environment = psutil.Process(pid_of(handle)).environ()
        assert environment[EXECUTION_VARIABLE] == handle.execution
    submitted = json.loads((harness.root / "runs" / harness.run / "attempt-1" / "spec.json").read_text())
    assert str(harness.policy.keys_folder) not in json.dumps(submitted)


@pytest.mark.parametrize("proc", [True, False], ids=["by /proc", "by psutil, as on macOS"])
def test_an_identity_is_of_one_process_alone(proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not proc:
        monkeypatch.setattr(processes, "_PROC_STAT", Path("/nowhere"))
    process = sleeper()
    identity = ProcessIdentity.of(process.pid)
    assert identity is not None
    assert identity.lives()
    assert not replace(identity, started="0").lives()
    process.kill()
    until(lambda: not identity.lives(), "a zombie does not live")
    process.wait()
    assert ProcessIdentity.of(process.pid) is None
