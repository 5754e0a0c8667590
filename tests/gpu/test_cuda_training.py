"""Training on CUDA, where a device is there and torch is built for it."""

from pathlib import Path

import pytest

from services.trainer.domain.spec import ExitCode, RunResult
from services.trainer.errors import Interrupted
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.prepare import prepare
from services.trainer.stages.stopping import Stopping
from tests.unit.trainer.tiny import CONFIGS, base_model, run_folder, runner

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*deterministic")]

GATES = {"int8_speedup": 0.0, "int8_agreement": 0.5, "int8_f1_loss": 0.5}


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what another test did first may have fixed it otherwise
    torch = pytest.importorskip("torch", reason="CUDA device: torch is not installed")
    pytest.importorskip("transformers", reason="CUDA device: transformers is not installed")
    if not torch.cuda.is_available():
        pytest.skip("CUDA device: torch was not built for CUDA, or the driver finds no device")


class StopsAt(Stopping):
    """As if SIGTERM arrived during the given step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def check(self) -> None:
        self._left -= 1
        super().check()
        self.requested = self._left <= 1


def weights(folder: RunFolder, stopping: Stopping | None = None) -> dict[str, bytes]:
    from safetensors.torch import load_file

    from services.trainer.stages.train import WEIGHTS_FILE, train

    train(folder, folder.spec(), prepare(folder, folder.spec()), stopping or Stopping())
    return {name: value.numpy().tobytes() for name, value in load_file(folder / WEIGHTS_FILE).items()}


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_model_is_trained_on_the_device_and_proven_on_the_cpu(tmp_path: Path, kind: str) -> None:
    import torch

    torch.cuda.reset_peak_memory_stats()
    base = str(base_model(tmp_path / "base", kind))
    folder = run_folder(tmp_path, base_model=base, device="cuda", gates=GATES)
    assert runner(folder).run() is ExitCode.SUCCEEDED
    result = RunResult.model_validate_json((folder / "result.json").read_bytes())
    assert torch.cuda.max_memory_allocated() > 0
    assert result.metrics.overall().accuracy > 0.6  # guessing: 0.33
    assert result.variants[0].max_difference < 1e-4


def test_auto_takes_the_device_and_computes_in_bfloat16_there() -> None:
    import torch

    from services.trainer.stages.device import arithmetic, device_for

    device = device_for("auto")
    assert device.type == "cuda"
    with arithmetic(device):
        product = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert product.dtype is torch.bfloat16


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, again = (weights(run_folder(tmp_path / name, device="cuda")) for name in ("first", "again"))
    assert first == again


def test_a_run_that_was_stopped_resumes_on_the_device_to_the_very_same_weights(tmp_path: Path) -> None:
    complete = weights(run_folder(tmp_path / "whole", device="cuda"))
    stopped = run_folder(tmp_path / "stopped", device="cuda")
    with pytest.raises(Interrupted):
        weights(stopped, StopsAt(8))
    assert weights(stopped) == complete
