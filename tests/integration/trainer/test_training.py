"""Training goes on after a kill as if it had never stopped."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from services.trainer.domain.spec import Stage
from services.trainer.errors import Interrupted
from services.trainer.stages.checkpoint import CHECKPOINT_FILE
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.prepare import prepare
from services.trainer.stages.stopping import Stopping, watch_memory
from services.trainer.stages.train import WEIGHTS_FILE, Trained, train
from tests.unit.trainer.tiny import run_folder

pytestmark = pytest.mark.slow  # trains for real, twice over

KILLED_AT = 13
KILLED_IN_MID_EPOCH = f"""
import os, signal, sys
from pathlib import Path
from services.kit.core.clock import SystemClock
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.prepare import prepare
from services.trainer.stages.stopping import Stopping
from services.trainer.stages.train import train

class Killed(Stopping):
    steps = 0
    def check(self):
        self.steps += 1
        if self.steps == {KILLED_AT}:
            os.kill(os.getpid(), signal.SIGKILL)

folder = RunFolder(Path(sys.argv[1]), SystemClock())
train(folder, folder.spec(), prepare(folder, folder.spec()), Killed())
"""


class StopsAt(Stopping):
    """As if SIGTERM arrived during the given step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def check(self) -> None:
        self._left -= 1
        super().check()
        self.requested = self._left <= 1


def trained(folder: RunFolder, stopping: Stopping | None = None) -> Trained:
    spec = folder.spec()
    return train(folder, spec, prepare(folder, spec), stopping or Stopping())


def same_weights(left: RunFolder, right: RunFolder) -> bool:
    ours, theirs = load_file(left / WEIGHTS_FILE), load_file(right / WEIGHTS_FILE)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_killed_in_mid_epoch_resumes_to_the_very_same_weights(tmp_path: Path) -> None:
    complete, killed = run_folder(tmp_path / "whole"), run_folder(tmp_path / "killed")
    process = subprocess.run(
        [sys.executable, "-c", KILLED_IN_MID_EPOCH, str(killed.root)],
        check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert process.returncode == -signal.SIGKILL
    assert (killed / CHECKPOINT_FILE).exists()
    assert trained(complete).resumed_at_step == 0
    assert trained(killed).resumed_at_step == 10
    assert same_weights(complete, killed)


def test_a_run_that_is_stopped_writes_its_step_and_resumes_there(tmp_path: Path) -> None:
    complete, stopped = run_folder(tmp_path / "whole"), run_folder(tmp_path / "stopped")
    with pytest.raises(Interrupted):
        trained(stopped, StopsAt(8))
    assert trained(stopped).resumed_at_step == 8
    trained(complete)
    assert same_weights(complete, stopped)


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / CHECKPOINT_FILE).write_bytes(b"\x10\0\0\0\0\0\0\0{torn")
    assert trained(folder).resumed_at_step == 0


def test_a_checkpoint_of_another_recipe_is_passed_over(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    with pytest.raises(Interrupted):
        trained(folder, StopsAt(8))
    other = run_folder(tmp_path, recipe={"epochs": 1, "max_length": 16}, data=tmp_path / "data.jsonl")
    assert trained(other).resumed_at_step == 0


def test_progress_is_reported_with_the_loss_falling(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    result = trained(folder)
    lines = (folder / "progress.jsonl").read_text().splitlines()
    assert f'"stage":"{Stage.TRAIN}"' in lines[-1]
    assert result.loss < 1.0  # ln 3 = 1.10 is what guessing costs


def test_outgrowing_the_memory_is_noticed_once() -> None:
    noticed = threading.Event()
    watch_memory(1, noticed.set)
    assert noticed.wait(60)
