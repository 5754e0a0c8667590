"""The embedded default leaves no process behind when it is taken down, in the middle of a run too."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from services.cli.launcher import launch
from services.kit.core.clock import SystemClock
from services.trainer.domain.spec import EXECUTION_VARIABLE
from services.trainer.outbound.processes import marked
from tests.e2e.fleet.scenario import playing
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("killed", [False, True], ids=["in order", "after the trainer was killed"])
async def test_down_ends_the_run_that_goes_on(tmp_path: Path, killed: bool) -> None:
    with playing(tmp_path / "home") as scenario:
        fleet = scenario.fleet
        scenario.announce("long", epochs=100)
        until(lambda: len(fleet.rows("trainer", "SELECT id FROM trainer_run")) == 1, "the run is queued", 60)
        ((run,),) = fleet.rows("trainer", "SELECT id FROM trainer_run")
        checkpoint = fleet.home.data / "trainer" / "runs" / run / "attempt-1" / "checkpoint.safetensors"
        until(checkpoint.exists, "it trains", 120)
        assert [process.pid for process in marked(EXECUTION_VARIABLE, f"{run}.1")]
        everything = {part.pid for part in fleet.state.parts} | {fleet.process.pid}
        if killed:
            os.kill(fleet.pid("trainer"), signal.SIGKILL)
        assert await launch.stop(fleet.home, SystemClock(), lambda _: None)
        fleet.process.wait(60)
        assert list(marked(EXECUTION_VARIABLE, f"{run}.1")) == []
        assert not everything & set(psutil.pids())
        failed_attempts = "SELECT failed_attempts FROM trainer_run"
        assert fleet.rows("trainer", failed_attempts) == [(0,)]
