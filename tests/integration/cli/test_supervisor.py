"""The supervisor keeps its fleet up, takes it down in order and leaves no orphan; services are stand-ins."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.home import Home
from services.cli.launcher import launch
from services.cli.launcher.broker import read_ready
from services.cli.launcher.processes import alive
from services.cli.launcher.state import FleetState
from services.kit.core.clock import SystemClock
from services.trainer.domain.spec import TrainingSpec
from services.trainer.outbound.executor import LocalExecutor, LocalPolicy
from services.trainer.outbound.workspace import Workspace
from tests.waiting import LIMIT_SECONDS, until

CHILD = Path(__file__).parents[1] / "trainer" / "child.py"
SUPERVISED = str(Path(__file__).with_name("supervised.py"))
SERVICE_NAMES = {"gateway", "trainer", "registry", "inference", "monitor"}


class Fleet:
    """A supervisor in a process of its own, and what it tells."""

    def __init__(self, folder: Path, *broken: str) -> None:
        self.home = Home(folder)
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        self.process = subprocess.Popen([sys.executable, SUPERVISED, str(folder), *broken], env=environment)

    @property
    def state(self) -> FleetState:
        state = FleetState.read(self.home.endpoints_file)
        assert state is not None
        return state

    def reaches(self, state: str) -> bool:
        response = FleetState.read(self.home.endpoints_file)
        return response is not None and response.state == state

    def pids(self) -> list[int]:
        return [part.pid for part in self.state.parts]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(tmp_path)
    until(lambda: started.reaches("ready"), "the fleet is ready")
    yield started
    started.process.terminate()
    started.process.wait(LIMIT_SECONDS)


def test_it_tells_where_everything_is_once_everything_answers(fleet: Fleet) -> None:
    state = fleet.state
    broker = read_ready(fleet.home.broker_file)
    assert broker is not None
    assert {part.name for part in state.parts} == SERVICE_NAMES | {"broker"}
    assert {part.state for part in state.parts} == {"ready"}
    assert state.endpoints["kafka"] == broker.bootstrap
    assert state.endpoints["rest"] == f"http://{state.part('gateway').http}"
    assert launch.is_running(fleet.home)


def test_a_killed_service_comes_back_on_its_port(fleet: Fleet) -> None:
    before = fleet.state.part("registry")
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: fleet.state.part("registry").restarts == 1, "the death was seen")
    until(lambda: fleet.state.part("registry").state == "ready", "it is ready again")
    after = fleet.state.part("registry")
    assert after.pid != before.pid
    assert after.http == before.http


def test_services_follow_a_broker_that_came_back_elsewhere(fleet: Fleet) -> None:
    address = fleet.state.endpoints["kafka"]
    os.kill(fleet.state.part("broker").pid, signal.SIGKILL)
    until(lambda: fleet.state.endpoints["kafka"] != address, "there is a new address")
    until(lambda: all(part.restarts == 1 for part in fleet.state.parts), "everything was started again")
    until(lambda: {part.state for part in fleet.state.parts} == {"ready"}, "everything is ready again")


def test_on_a_signal_it_ends_all_and_forgets_them(fleet: Fleet) -> None:
    pids = fleet.pids()
    fleet.process.terminate()
    assert fleet.process.wait(LIMIT_SECONDS) == 0
    assert not any(map(alive, pids))
    assert not fleet.home.endpoints_file.exists()
    assert not launch.is_running(fleet.home)
    assert not (fleet.home.root / "end-runs").exists()


def test_a_trainer_that_did_not_end_by_itself_gets_a_signal_to_end_the_runs_it_left(fleet: Fleet) -> None:
    os.kill(fleet.state.part("trainer").pid, signal.SIGKILL)
    fleet.process.terminate()
    assert fleet.process.wait(30) == 0
    assert (fleet.home.root / "end-runs").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_supervisor_leaves_no_orphan(fleet: Fleet) -> None:
    pids = fleet.pids()
    fleet.process.kill()
    fleet.process.wait(LIMIT_SECONDS)
    until(lambda: not any(map(alive, pids)), "all have ended")


@pytest.mark.slow
def test_a_service_that_cannot_start_ends_the_fleet_and_is_named(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "monitor")
    assert fleet.process.wait(LIMIT_SECONDS) == 1
    assert fleet.state.state == "failed"
    assert "monitor ended with 2" in fleet.state.problem
    assert "no such setting" in Path(fleet.state.part("monitor").log).read_text()
    assert not any(map(alive, fleet.pids()))


async def test_down_stops_a_fleet_and_says_whether_there_was_one(fleet: Fleet) -> None:
    response: list[str] = []
    assert await launch.stop(fleet.home, SystemClock(), lambda state: response.append(state.state))
    assert not launch.is_running(fleet.home)
    assert not await launch.stop(fleet.home, SystemClock(), lambda _: None)


async def test_a_supervisor_that_does_not_end_is_killed_with_all_that_its_services_left(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHILD_FINISH", str(fleet.home.root / "never"))
    policy = LocalPolicy(
        threads=1, stop_seconds=5.0, run_folder_limit=5, traces_folder=fleet.home.traces, keys_folder=fleet.home.root,
        command=(sys.executable, str(CHILD)),
    )  # fmt: skip
    executor = LocalExecutor(Workspace(fleet.home.data / "trainer" / "runs"), policy, SystemClock())
    spec = TrainingSpec(
        run=f"run-{fleet.process.pid}", tenant="default", model="m", dataset="d", data_uri="file:///nowhere",
        base_model="patient", artifact_store="file:///store", working_uri="file:///work",
    )  # fmt: skip
    handle = await executor.submit(spec, 1)
    pids = fleet.pids()
    os.kill(fleet.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(launch, "STOP_LIMIT_SECONDS", 0.3)
    assert await launch.stop(fleet.home, SystemClock(), lambda _: None)
    fleet.process.wait(10)
    assert not any(map(alive, pids))
    assert not alive(int(handle.reference["pid"]))


def test_it_is_small(fleet: Fleet) -> None:
    """Loaded on top of the standard library: the kit's clock and the broker's topics, nothing else of weight."""
    script = (
        "import sys, services.cli.launcher.supervisor; print(sorted({'pydantic', 'yaml', 'httpx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
    if sys.platform == "linux":
        status = Path(f"/proc/{fleet.process.pid}/status").read_text()
        kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
        assert kilobytes < 40_000
