"""The local executor with the child that really trains, on a model that takes seconds."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from services.contracts.artifact import Precision
from services.kit.core import telemetry
from services.kit.core.clock import SystemClock
from services.kit.core.ids import SystemIds
from services.kit.core.tabular import OutsideRoots, UnsupportedAddress
from services.kit.identity.auth import ensure_keys
from services.kit.storage.artifacts import ArtifactStore
from services.kit.storage.uploads import UploadStore
from services.trainer.domain.datasets import Example
from services.trainer.domain.spec import (
    EXECUTION_VARIABLE,
    INTERRUPTED,
    ChampionRef,
    Failure,
    Handle,
    Progress,
    RunResult,
    Stage,
    TrainingSpec,
)
from services.trainer.outbound.executor import LocalExecutor, LocalPolicy
from services.trainer.outbound.inputs import StoredInputs
from services.trainer.outbound.processes import marked
from services.trainer.outbound.workspace import Workspace
from services.trainer.ports import Execution, Outcome
from tests.unit.trainer.tiny import base_model, texts, write_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RECIPE = {"epochs": 8, "max_length": 32, "batch_size": 8, "learning_rate": 0.01, "head_learning_rate": 0.1}


class RunHarness:
    """A home folder with keys, an artifact store, a base model and a data set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ensure_keys(root / "keys")
        self.artifacts = ArtifactStore((root / "artifacts").as_uri(), root / "keys")
        self.workspace = Workspace(root / "runs")
        self.data = write_jsonl(root / "rows.jsonl", texts(240))
        self.base = base_model(root / "base")
        self.policy = LocalPolicy(
            threads=1, stop_seconds=20, run_folder_limit=5, traces_folder=root / "traces", keys_folder=root / "keys"
        )
        self.executor = LocalExecutor(self.workspace, self.policy, SystemClock())
        self.keep_uploads_in((root / "uploads").as_uri())

    def keep_uploads_in(self, root: str) -> None:
        self.uploads = UploadStore(root, SystemClock(), SystemIds())
        store = (self.root / "artifacts").as_uri()
        self.inputs = StoredInputs(self.workspace, self.uploads, [self.root / "rows.jsonl", self.root], store)

    async def upload(self, tenant: str = "default") -> str:
        async with self.uploads.begin() as upload:
            await upload.write(self.data.read_bytes())
            uri, _ = await upload.keep(tenant, "d", "jsonl")
        return uri

    def spec(self, *, epochs: int = 8, data_uri: str = "", run: str = "run-1", **changes: object) -> TrainingSpec:
        fields = {
            "run": run, "tenant": "default", "model": "m", "dataset": "d", "data_uri": data_uri or self.data.as_uri(),
            "recipe": RECIPE | {"epochs": epochs}, "base_model": str(self.base), "checkpoint_steps": 5,
            "frozen_layers": 1, "artifact_store": self.inputs.artifact_store(),
            "working_uri": self.inputs.working_uri(run),
        }  # fmt: skip
        return TrainingSpec.model_validate(fields | changes)

    async def until(self, handle: Handle, reached: "type[Reached]", steps: int = 0) -> Execution:
        deadline = time.monotonic() + 200
        while not reached(steps).by(execution := await self.executor.poll(handle, 0)):
            assert time.monotonic() < deadline, "the run does not get there"
            await asyncio.sleep(0.05)
        return execution

    async def outcome(self, spec: TrainingSpec, attempt: int = 1) -> Outcome:
        execution = await self.until(await self.executor.submit(spec, attempt), End)
        assert execution.outcome is not None
        return execution.outcome


class Reached:
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def by(self, execution: Execution) -> bool:
        assert execution.outcome is None, execution.outcome
        return any(self.is_far_enough(step) for step in execution.progress)

    def is_far_enough(self, step: Progress) -> bool:
        return (
            step.stage is Stage.TRAIN
            and step.message.startswith("step ")
            and int(step.message.split()[1]) >= self.steps
        )


class Resumed(Reached):
    def is_far_enough(self, step: Progress) -> bool:
        return "resumed at step" in step.message


class End(Reached):
    def by(self, execution: Execution) -> bool:
        return execution.outcome is not None


@pytest.fixture
def harness(tmp_path: Path) -> RunHarness:
    return RunHarness(tmp_path)


async def test_a_run_ends_with_a_signed_artifact_and_the_next_is_compared_with_it(harness: RunHarness) -> None:
    handle = await harness.executor.submit(harness.spec(), 1)
    first = await harness.until(handle, End)
    assert isinstance(first.outcome, RunResult)
    assert first.outcome.artifact.uri == f"{(harness.root / 'artifacts').as_uri()}/default/m/run-1.1"
    checked = await harness.artifacts.fetch(first.outcome.artifact, harness.root / "cache")
    assert (checked / "fp32.onnx").exists()
    assert list(dict.fromkeys(step.stage for step in first.progress)) == list(Stage)
    examples = [Example(row["text"], row["label"]) for row in texts(100, seed=9)]
    champion = ChampionRef(version=1, artifact=first.outcome.artifact, precision=Precision.FP32)
    feedback_uri = await harness.inputs.write_examples("run-2", examples)
    second = await harness.outcome(harness.spec(run="run-2", champion=champion, feedback_uri=feedback_uri))
    assert isinstance(second, RunResult)
    assert second.comparison is not None
    assert [part.name for part in second.metrics.slices] == ["all", "base", "feedback"]
    assert "publish  100% done" in (await harness.executor.logs(handle, 0, 1000))[-1]


async def test_a_child_killed_in_mid_epoch_leaves_a_failure_that_may_pass_and_the_next_attempt_resumes(
    harness: RunHarness,
) -> None:
    spec = harness.spec(epochs=100)
    handle = await harness.executor.submit(spec, 1)
    await harness.until(handle, Reached, steps=30)
    os.kill(int(handle.reference["pid"]), signal.SIGKILL)
    killed = (await harness.until(handle, End)).outcome
    assert isinstance(killed, Failure)
    assert (killed.code, killed.stage, killed.retryable) == ("killed", Stage.TRAIN, True)
    second = await harness.executor.submit(spec, 2)
    resumed = await harness.until(second, Resumed)
    assert not any(step.stage is Stage.PREPARE for step in resumed.progress)
    await harness.executor.cancel(second)


async def test_a_cancelled_run_leaves_its_checkpoint_and_no_process(harness: RunHarness) -> None:
    handle = await harness.executor.submit(harness.spec(epochs=100), 1)
    await harness.until(handle, Reached, steps=10)
    await harness.executor.cancel(handle)
    assert await harness.executor.executions() == []
    stopped = (await harness.executor.poll(handle, 0)).outcome
    assert isinstance(stopped, Failure)
    assert (stopped.code, stopped.stage) == (INTERRUPTED, Stage.TRAIN)
    assert (harness.root / "runs" / "run-1" / "attempt-1" / "checkpoint.safetensors").exists()


async def test_torchrun_may_start_the_process_and_is_cancelled_with_its_worker(harness: RunHarness) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "--module")
    command = (*torchrun, "services.trainer.stages")
    harness.executor = LocalExecutor(harness.workspace, replace(harness.policy, command=command), SystemClock())
    handle = await harness.executor.submit(harness.spec(epochs=100), 1)
    await harness.until(handle, Reached, steps=10)
    assert len(list(marked(EXECUTION_VARIABLE, handle.execution))) >= 2
    await harness.executor.cancel(handle)
    assert list(marked(EXECUTION_VARIABLE, handle.execution)) == []
    assert (harness.root / "runs" / "run-1" / "attempt-1" / "checkpoint.safetensors").exists()
    second = await harness.until(await harness.executor.submit(harness.spec(epochs=100), 2), End)
    assert isinstance(second.outcome, RunResult)
    assert any("resumed at step" in step.message for step in second.progress)


async def test_what_cannot_be_trained_on_is_a_failure_that_cannot_pass(harness: RunHarness) -> None:
    one = write_jsonl(harness.root / "one.jsonl", [{**row, "label": "x"} for row in texts(60)])
    failed = await harness.outcome(harness.spec(data_uri=one.as_uri()))
    assert isinstance(failed, Failure)
    assert (failed.code, failed.stage, failed.row, failed.retryable) == ("one_class", Stage.PREPARE, 1, False)


async def test_the_spans_of_the_child_belong_to_the_trace_of_the_job(harness: RunHarness) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with telemetry.attached({"traceparent": f"00-{trace}-b7ad6b7169203331-01"}):
        one = write_jsonl(harness.root / "one.jsonl", [{**row, "label": "x"} for row in texts(60)])
        await harness.outcome(harness.spec(data_uri=one.as_uri()))
    spans = (harness.root / "traces" / "millrace-trainer.jsonl").read_text()
    assert f'"trace_id":"{trace}"' in spans
    assert '"name":"stage prepare"' in spans


async def test_an_upload_in_a_store_that_is_no_folder_is_fetched_by_the_run(harness: RunHarness) -> None:
    harness.keep_uploads_in(f"local://{harness.root}/uploads")  # as good as s3://: nobody reads it but through fsspec
    uri = await harness.upload()
    data_uri = await harness.inputs.data("default", uri)
    done = await harness.outcome(harness.spec(data_uri=data_uri, epochs=1))
    assert isinstance(done, RunResult)
    assert done.content is not None
    assert done.content.rows == 240
    gone = await harness.outcome(harness.spec(data_uri=data_uri.replace(done.content.sha256, "0" * 64), run="run-2"))
    assert isinstance(gone, Failure)
    assert (gone.code, gone.retryable) == ("missing_file", False)
    with pytest.raises(UnsupportedAddress):
        await harness.inputs.data("other", uri)


async def test_a_tenants_runs_read_what_lies_under_a_root_and_its_own_uploads_alone(harness: RunHarness) -> None:
    harness.keep_uploads_in((harness.root.parent / f"uploads-of-{harness.root.name}").as_uri())
    uri = await harness.upload("other")
    assert await harness.inputs.data("other", uri) == uri
    assert await harness.inputs.data("default", harness.data.as_uri()) == harness.data.as_uri()
    for tenant, address in (("default", uri), ("default", "file:///etc/passwd")):
        with pytest.raises(OutsideRoots):
            await harness.inputs.data(tenant, address)
