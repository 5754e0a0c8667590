"""What every executor promises, on the fake that the handlers are tried with and on real processes."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.kit.core.clock import SystemClock, VirtualClock
from services.trainer.domain.spec import EXECUTION_VARIABLE, INTERRUPTED, Failure, Handle, RunResult, TrainingSpec
from services.trainer.errors import UnknownExecution
from services.trainer.outbound.executor import LocalExecutor, LocalPolicy
from services.trainer.outbound.processes import kill_marked
from services.trainer.outbound.workspace import Workspace
from services.trainer.ports import Execution, Executor
from tests.integration.trainer.service import FakeExecutor, result_of

CHILD = Path(__file__).parent / "child.py"


@dataclass
class Tried:
    """An executor, and how its work is let end."""

    executor: Executor
    spec: TrainingSpec
    finish: Callable[[Handle], None]

    async def until(self, handle: Handle, reached: Callable[[Execution], bool]) -> Execution:
        deadline = time.monotonic() + 60
        while not reached(execution := await self.executor.poll(handle, 0)):
            assert time.monotonic() < deadline, "the execution does not get there"
            await asyncio.sleep(0.02)
        return execution


@pytest.fixture(params=["fake", "local"])
def tried(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tried]:
    run = f"run-{tmp_path.parent.name}-{tmp_path.name}".lower()
    spec = TrainingSpec(
        run=run, tenant="default", model="m", dataset="d", data_uri="file:///nowhere", base_model="patient",
        artifact_store="file:///store", working_uri=(tmp_path / "runs" / run).as_uri(),
    )  # fmt: skip
    if request.param == "fake":
        fake = FakeExecutor(VirtualClock(), held=True)
        yield Tried(fake, spec, lambda handle: fake.end(handle.execution))
        return
    monkeypatch.setenv("CHILD_RESULT", result_of("RUN").model_dump_json())
    monkeypatch.setenv("CHILD_FINISH", str(tmp_path / "finish"))
    policy = LocalPolicy(
        threads=1, stop_seconds=5.0, run_folder_limit=5, traces_folder=tmp_path, keys_folder=tmp_path,
        command=(sys.executable, str(CHILD)),
    )  # fmt: skip
    local = LocalExecutor(Workspace(tmp_path / "runs"), policy, SystemClock())
    yield Tried(local, spec, lambda _: (tmp_path / "finish").touch())
    kill_marked(EXECUTION_VARIABLE, f"{run}.1")


async def test_an_attempt_is_submitted_once_and_listed_while_it_is_under_way(tried: Tried) -> None:
    handle = await tried.executor.submit(tried.spec, 1)
    assert await tried.executor.submit(tried.spec, 1) == handle
    assert (handle.tenant, handle.run, handle.attempt) == ("default", tried.spec.run, 1)
    assert await tried.executor.executions() == [handle]
    await tried.executor.cancel(handle)
    assert await tried.executor.executions() == []
    assert await tried.executor.submit(tried.spec, 1) == handle


async def test_progress_comes_once_and_the_outcome_stays(tried: Tried) -> None:
    handle = await tried.executor.submit(tried.spec, 1)
    assert (await tried.executor.poll(handle, 0)).outcome is None
    first = await tried.until(handle, lambda execution: bool(execution.progress))
    tried.finish(handle)
    ended = await tried.until(handle, lambda execution: execution.outcome is not None)
    assert isinstance(ended.outcome, RunResult)
    assert ended.outcome.run == tried.spec.run
    rest = await tried.executor.poll(handle, first.progress_read)
    assert [*first.progress, *rest.progress] == list(ended.progress)
    assert (await tried.executor.poll(handle, rest.progress_read)).progress == type(rest.progress)()
    assert ended.started_at <= ended.active_at
    assert (await tried.executor.poll(handle, 0)).outcome == ended.outcome


async def test_cancelled_work_was_interrupted_and_cancelling_it_again_changes_nothing(tried: Tried) -> None:
    handle = await tried.executor.submit(tried.spec, 1)
    await tried.until(handle, lambda execution: bool(execution.progress))
    for _ in range(2):
        await tried.executor.cancel(handle)
        ended = (await tried.executor.poll(handle, 0)).outcome
        assert isinstance(ended, Failure)
        assert (ended.code, ended.retryable) == (INTERRUPTED, True)


async def test_a_result_outlives_being_cancelled(tried: Tried) -> None:
    handle = await tried.executor.submit(tried.spec, 1)
    tried.finish(handle)
    await tried.until(handle, lambda execution: execution.outcome is not None)
    await tried.executor.cancel(handle)
    assert isinstance((await tried.executor.poll(handle, 0)).outcome, RunResult)


async def test_a_log_has_as_many_lines_as_were_requested(tried: Tried) -> None:
    handle = await tried.executor.submit(tried.spec, 1)
    await tried.until(handle, lambda execution: len(execution.progress) >= 4)
    lines = await tried.executor.logs(handle, 0, 4)
    assert len(lines) == 4
    assert await tried.executor.logs(handle, 1, 2) == lines[1:3]


async def test_only_what_was_submitted_can_be_attached_to(tried: Tried) -> None:
    handle = await tried.executor.submit(tried.spec, 1)
    await tried.executor.attach(handle)
    elsewhere = {"run": "run-unknown", "working_uri": "file:///nowhere"}
    with pytest.raises(UnknownExecution):
        await tried.executor.attach(handle.model_copy(update=elsewhere))
