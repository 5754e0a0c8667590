"""The executor with real child processes, on a model that trains in seconds."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.contracts.artifact import Precision
from services.contracts.events import DatasetReady
from services.kit import telemetry
from services.kit.artifacts import ArtifactStore
from services.kit.auth import ensure_keys
from services.kit.clock import SystemClock
from services.kit.ids import SystemIds
from services.kit.uploads import UploadStore
from services.trainer.domain.datasets import Example
from services.trainer.domain.spec import Failure, Limits, Progress, Stage
from services.trainer.outbound.executor import ChildProcesses, RunPolicy
from services.trainer.outbound.workspace import Workspace
from services.trainer.ports import Assignment, Champion, Finished
from tests.unit.trainer.tiny import base_model, texts, write_jsonl
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RECIPE = {"epochs": 8, "max_length": 32, "batch_size": 8, "learning_rate": 0.01, "head_learning_rate": 0.1}


class Place:
    """A home folder with keys, an artifact store, a base model and a data set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ensure_keys(root / "keys")
        self.artifacts = ArtifactStore((root / "artifacts").as_uri(), root / "keys")
        self.workspace = Workspace(root / "runs")
        self.data = write_jsonl(root / "rows.jsonl", texts(240))
        self.policy = RunPolicy(
            roots=[root],
            base_model=str(base_model(root / "base")),
            limits=Limits(),
            threads=1,
            checkpoint_steps=5,
            frozen_layers=1,
            stop_seconds=20,
            runs_kept=5,
            traces_folder=root / "traces",
        )
        self.told: list[Progress] = []
        self.keep_uploads_in((root / "uploads").as_uri())

    def keep_uploads_in(self, root: str) -> None:
        self.uploads = UploadStore(root, SystemClock(), SystemIds())
        self.executor = ChildProcesses(self.workspace, self.artifacts, self.uploads, self.policy)

    def assignment(
        self, fence: int = 1, *, epochs: int = 8, uri: str = "", run: str = "run-1", tenant: str = "default",
        **changes: object,
    ) -> Assignment:  # fmt: skip
        dataset = DatasetReady.model_validate(
            {"dataset": "d", "uri": uri or self.data.as_uri(), "model": "m", "recipe": RECIPE | {"epochs": epochs}}
        )
        fields = {"examples": [], "champion": None} | changes
        return Assignment(run, tenant, fence, dataset, **fields)  # type: ignore[arg-type]

    async def tell(self, progress: Progress) -> None:
        self.told.append(progress)

    def child(self) -> int:
        """The process id of the run's child; 0 while there is none."""
        found = subprocess.run(["pgrep", "-f", str(self.root / "runs")], capture_output=True, text=True, check=False)
        return int((found.stdout.split() or ["0"])[0])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def when(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, condition, "the run gets there", 200)


async def test_a_run_ends_with_a_signed_artifact_and_the_next_is_compared_with_it(place: Place) -> None:
    first = await place.executor.run(place.assignment(), place.tell)
    assert isinstance(first, Finished)
    checked = await place.artifacts.fetch(first.artifact, place.root / "cache")
    assert (checked / "fp32.onnx").exists()
    assert list(dict.fromkeys(step.stage for step in place.told)) == list(Stage)
    examples = [Example(row["text"], row["label"]) for row in texts(100, seed=9)]
    champion = Champion(1, first.artifact, Precision.FP32)
    second = await place.executor.run(
        Assignment("run-2", "default", 1, place.assignment().dataset, examples, champion), place.tell
    )
    assert isinstance(second, Finished)
    assert second.result.comparison is not None
    assert [part.name for part in second.result.metrics.slices] == ["all", "base", "feedback"]
    assert "package  100% done" in (await place.executor.lines("default", "run-2", 0))[-1]


async def test_a_child_killed_in_mid_epoch_leaves_a_failure_that_may_pass_and_the_next_attempt_resumes(
    place: Place,
) -> None:
    def trained(steps: int) -> bool:
        return any(step.stage is Stage.TRAIN and step.fraction * 15 * 100 >= steps for step in place.told)

    running = asyncio.ensure_future(place.executor.run(place.assignment(epochs=100), place.tell))
    await when(lambda: trained(30))
    os.kill(place.child(), signal.SIGKILL)
    killed = await running
    assert isinstance(killed, Failure)
    assert (killed.code, killed.stage, killed.retryable) == ("killed", Stage.TRAIN, True)
    place.told.clear()
    running = asyncio.ensure_future(place.executor.run(place.assignment(fence=2, epochs=100), place.tell))
    await when(lambda: any("resumed at step" in step.message for step in place.told))
    assert not any(step.stage is Stage.PREPARE for step in place.told)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_cancelled_run_leaves_its_checkpoint_and_no_process(place: Place) -> None:
    running = asyncio.ensure_future(place.executor.run(place.assignment(epochs=100), place.tell))
    await when(lambda: any(step.stage is Stage.TRAIN and step.fraction > 0 for step in place.told))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert place.child() == 0
    assert (place.root / "runs" / "run-1" / "attempt-1" / "checkpoint.safetensors").exists()


async def test_what_cannot_be_trained_on_is_a_failure_that_cannot_pass(place: Place) -> None:
    one = write_jsonl(place.root / "one.jsonl", [{**row, "label": "x"} for row in texts(60)])
    failed = await place.executor.run(place.assignment(uri=one.as_uri()), place.tell)
    assert isinstance(failed, Failure)
    assert (failed.code, failed.stage, failed.row, failed.retryable) == ("one_class", Stage.PREPARE, 1, False)


async def test_a_data_set_outside_the_roots_is_refused_before_any_process(place: Place) -> None:
    failed = await place.executor.run(place.assignment(uri="file:///etc/passwd"), place.tell)
    assert isinstance(failed, Failure)
    assert (failed.code, failed.retryable) == ("outside_roots", False)
    assert not (place.root / "runs").exists()


def test_the_child_dies_with_its_parent(place: Place, tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from tests.integration.trainer.test_child_processes import Place

place = Place(Path({str(tmp_path)!r}))
asyncio.run(place.executor.run(place.assignment(epochs=100), place.tell))
"""
    environment = {**os.environ, "PYTHONPATH": "."}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        until(lambda: bool(list(tmp_path.glob("runs/*/attempt-1/progress.jsonl"))), "the run begins", 120)
        assert place.child()
    finally:
        parent.kill()
        parent.wait()
    until(lambda: place.child() == 0, "the child dies")


async def test_the_spans_of_the_child_belong_to_the_trace_of_the_job(place: Place) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with telemetry.attached({"traceparent": f"00-{trace}-b7ad6b7169203331-01"}):
        one = write_jsonl(place.root / "one.jsonl", [{**row, "label": "x"} for row in texts(60)])
        await place.executor.run(place.assignment(uri=one.as_uri()), place.tell)
    spans = (place.root / "traces" / "millrace-trainer.jsonl").read_text()
    assert f'"trace_id":"{trace}"' in spans
    assert '"name":"stage prepare"' in spans


async def test_an_upload_in_a_store_that_is_no_folder_is_fetched_for_the_run(place: Place) -> None:
    place.keep_uploads_in("memory://uploads")
    async with place.uploads.begin() as upload:
        await upload.write(place.data.read_bytes())
        content = await upload.content()
        uri, _ = await upload.keep("default", "d", "jsonl")
    done = await place.executor.run(place.assignment(uri=uri, epochs=1), place.tell)
    assert isinstance(done, Finished)
    assert done.result.content is not None
    assert (done.result.content.sha256, done.result.content.rows) == (content.sha256, 240)
    gone = await place.executor.run(
        place.assignment(uri=uri.replace(content.sha256, "0" * 64), run="run-2"), place.tell
    )
    foreign = await place.executor.run(place.assignment(uri=uri, tenant="other", run="run-3"), place.tell)
    assert isinstance(gone, Failure)
    assert isinstance(foreign, Failure)
    assert (gone.code, foreign.code) == ("missing_file", "unsupported_address")


async def test_a_tenants_runs_read_its_own_uploads_alone(place: Place) -> None:
    place.keep_uploads_in((place.root.parent / "uploads-elsewhere").as_uri())
    async with place.uploads.begin() as upload:
        await upload.write(place.data.read_bytes())
        uri, _ = await upload.keep("other", "d", "jsonl")
    refused = await place.executor.run(place.assignment(uri=uri), place.tell)
    assert isinstance(refused, Failure)
    assert refused.code == "outside_roots"
