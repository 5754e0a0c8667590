"""A whole run: what it leaves behind when it succeeds, and when it cannot."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from services.contracts.artifact import ModelSpec, Precision, baseline_file, graph_file
from services.contracts.training import VariantReport
from services.kit.storage.artifacts import ArtifactStore
from services.trainer.domain.spec import KEYS_VARIABLE, ExitCode, Failure, Gates, Progress, RunResult, Stage
from services.trainer.errors import ParityFailed
from services.trainer.stages.batches import encode, pad
from services.trainer.stages.compress import compress, refusal_of
from services.trainer.stages.evaluate import LOGITS_FILE, Evaluated, load_array, save_array
from services.trainer.stages.export import Exported, export
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.graphs import Graph
from services.trainer.stages.prepare import Prepared
from tests.unit.trainer.tiny import WIDTH, run_folder, runner, texts, write_jsonl

pytestmark = pytest.mark.slow  # every stage for real, several times over

# a graph this small is no faster in int8, and rounding hits it harder
GATES = {"int8_speedup": 0.0, "int8_agreement": 0.5, "int8_f1_loss": 0.5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with feedback that has succeeded."""
    root = tmp_path_factory.mktemp("run")
    feedback = write_jsonl(root / "feedback.jsonl", texts(120, seed=5))
    folder = run_folder(root, feedback=feedback, gates=GATES)
    assert runner(folder).run() is ExitCode.SUCCEEDED
    return folder


@pytest.fixture(scope="module")
def result(finished: RunFolder) -> RunResult:
    return RunResult.model_validate_json((finished / "result.json").read_bytes())


def test_the_artifact_has_exactly_the_files_of_the_contract(finished: RunFolder) -> None:
    assert {path.name for path in (finished / "artifact").iterdir()} == {
        "millrace.json", "tokenizer.json", "evaluation.json", "fp32.onnx", "int8.onnx", "fp16.onnx",
        "baseline.fp32.npy", "baseline.int8.npy", "baseline.fp16.npy", "manifest.json", "model.sig",
    }  # fmt: skip


def test_the_spec_and_the_baselines_say_what_a_server_needs(finished: RunFolder) -> None:
    spec = ModelSpec.model_validate_json((finished / "artifact" / "millrace.json").read_bytes())
    assert spec.labels == ["fruit", "metal", "weather"]
    assert (spec.max_length, spec.embedding_width, spec.base_model) == (32, WIDTH, "base")
    assert spec.devices == {"fp32": ["cpu", "cuda"], "int8": ["cpu"], "fp16": ["cuda"]}
    for precision in spec.variants:
        baseline_ND = np.load(finished / "artifact" / baseline_file(precision), allow_pickle=False)
        assert baseline_ND.dtype == np.float32
        assert baseline_ND.shape[1] == WIDTH
        exactness = 2e-3 if precision is Precision.FP16 else 1e-4
        np.testing.assert_allclose(np.linalg.norm(baseline_ND, axis=1), 1.0, atol=exactness)


def test_padding_changes_no_answer_of_the_exported_graph(finished: RunFolder) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(finished / "artifact" / "tokenizer.json"))
    ids = encode(tokenizer, ["old iron", "some rain and snow near the small hail"], 32)
    graph = Graph(finished / "artifact" / graph_file(Precision.FP32))
    alone_BC, _ = graph.run(pad(ids, [0], 0))
    padded_BC, _ = graph.run(pad(ids, [0, 1], 0, length=32))
    np.testing.assert_allclose(padded_BC[:1], alone_BC, atol=1e-5)


def test_the_result_scores_every_slice_with_an_interval(result: RunResult) -> None:
    assert [part.name for part in result.metrics.slices] == ["all", "base", "feedback"]
    for part in result.metrics.slices:
        assert part.macro_f1_ci95.low <= part.macro_f1 <= part.macro_f1_ci95.high
    assert result.metrics.overall().macro_f1 > 0.6
    assert [variant.precision for variant in result.variants] == [Precision.FP32, Precision.INT8, Precision.FP16]
    assert result.variants[0].max_difference < 1e-4


def test_the_artifact_lies_in_the_store_checked_and_signed(finished: RunFolder, result: RunResult) -> None:
    store = ArtifactStore((finished / "store").as_uri(), finished / "keys")
    folder = asyncio.run(store.fetch(result.artifact, finished / "cache"))
    assert result.artifact.uri == f"{(finished / 'store').as_uri()}/default/topics/run"
    assert (folder / "fp32.onnx").read_bytes() == (finished / "artifact" / "fp32.onnx").read_bytes()


def test_progress_tells_every_stage_in_order(finished: RunFolder) -> None:
    lines = [Progress.model_validate_json(line) for line in (finished / "progress.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line.stage for line in lines)) == list(Stage)


def test_a_second_process_over_a_finished_run_does_nothing_again(finished: RunFolder) -> None:
    before = (finished / "artifact" / "fp32.onnx").stat().st_mtime_ns
    second = runner(finished)
    assert second.run() is ExitCode.SUCCEEDED
    assert second.seconds == {}
    assert (finished / "artifact" / "fp32.onnx").stat().st_mtime_ns == before


def test_a_champion_is_answered_on_the_same_rows_and_counted_in_pairs(finished: RunFolder, tmp_path: Path) -> None:
    champion = {"version": 3, "folder": finished / "artifact", "precision": "int8"}
    spec = finished.spec()
    folder = run_folder(tmp_path, data=spec.data, feedback=spec.feedback, champion=champion, gates=GATES)
    assert runner(folder).run() is ExitCode.SUCCEEDED
    matches = RunResult.model_validate_json((folder / "result.json").read_bytes())
    assert matches.comparison is not None
    assert matches.comparison.champion == 3
    complete = matches.comparison.slices[0]
    assert (
        complete.both + complete.candidate_only + complete.champion_only + complete.neither == matches.metrics.test_rows
    )
    assert (
        complete.both + complete.neither > 0.9 * matches.metrics.test_rows
    )  # trained on the same rows, from the same seed


def test_an_export_that_answers_otherwise_than_torch_does_not_leave(finished: RunFolder) -> None:
    right_NC = load_array(finished, LOGITS_FILE)
    wrong_NC = right_NC.copy()
    wrong_NC[-1, 0] += 0.01
    save_array(finished, LOGITS_FILE, wrong_NC)
    prepared = Prepared.model_validate_json((finished / "prepare.json").read_bytes())
    evaluated = Evaluated.model_validate_json((finished / "evaluate.json").read_bytes())
    try:
        with pytest.raises(ParityFailed):
            export(finished, finished.spec(), prepared, evaluated)
    finally:
        save_array(finished, LOGITS_FILE, right_NC)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"agreement": 0.90}, "agrees with fp32"),
        ({"macro_f1": 0.77}, "macro F1"),
        ({"speedup": 0.9}, "times as fast"),
    ],
)
def test_int8_is_served_only_where_it_is_as_good_and_faster(changes: dict[str, float], reason: str) -> None:
    fp32 = VariantReport(
        precision=Precision.FP32, size_bytes=90, macro_f1=0.80, agreement=1, max_difference=0, speedup=1, passed=True
    )
    good = {"precision": Precision.INT8, "size_bytes": 23, "macro_f1": 0.79, "agreement": 0.98, "speedup": 2.0}
    int8 = fp32.model_copy(update=good | changes)
    assert refusal_of(int8, fp32, Gates()).partition(",")[0].find(reason) >= 0


@pytest.mark.parametrize(
    ("agreement", "macro_f1", "reason"), [(0.985, 0.8, "agrees"), (1.0, 0.789, "macro F1"), (0.99, 0.79, "")]
)
def test_fp16_is_held_to_more_than_int8_and_never_to_a_speed_on_the_cpu(
    agreement: float, macro_f1: float, reason: str
) -> None:
    fp32 = VariantReport(
        precision=Precision.FP32, size_bytes=90, macro_f1=0.80, agreement=1, max_difference=0, speedup=1, passed=True
    )
    measured = {"precision": Precision.FP16, "agreement": agreement, "macro_f1": macro_f1, "speedup": 0.0}
    fp16 = fp32.model_copy(update=measured)
    assert refusal_of(fp16, fp32, Gates()).startswith(reason)
    assert bool(refusal_of(fp16, fp32, Gates())) == bool(reason)


def test_a_run_that_makes_no_fp16_leaves_none(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, gates=GATES, fp16=False, recipe={"epochs": 1, "max_length": 32})
    assert runner(folder).run() is ExitCode.SUCCEEDED
    assert not list((folder / "artifact").glob("*fp16*"))


def test_what_overflows_in_half_precision_is_refused_by_its_gate(tmp_path: Path, finished: RunFolder) -> None:
    """Weights that float32 bears and float16 does not: a CPU's own float16 would not show it."""
    folder = RunFolder(tmp_path, finished.clock)
    for name in ("run.json", "rows.jsonl", LOGITS_FILE, "fp32.logits.npy"):
        shutil.copyfile(finished / name, folder / name)
    model = onnx.load(finished / "fp32.onnx")
    head = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("head.weight"))
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * np.float32(1e6), head.name))
    onnx.save(model, folder / "fp32.onnx")
    prepared = Prepared.model_validate_json((finished / "prepare.json").read_bytes())
    exported = Exported.model_validate_json((finished / "export.json").read_bytes())
    fp16 = compress(folder, finished.spec(), prepared, exported).variants[-1]
    assert (fp16.precision, fp16.passed, fp16.agreement) == (Precision.FP16, False, 0.0)
    assert "agrees with fp32 on 0.000" in fp16.reason


def test_one_class_ends_the_process_with_a_code_a_row_and_no_trace(tmp_path: Path) -> None:
    rows = [{**row, "label": "fruit"} for row in texts(60)]
    folder = run_folder(tmp_path, data=write_jsonl(tmp_path / "one.jsonl", rows))
    process = run_process(folder)
    assert (process.returncode, process.stdout, process.stderr) == (ExitCode.DATA_REFUSED, "", "")
    failure = Failure.model_validate_json((folder / "failure.json").read_bytes())
    assert (failure.stage, failure.code, failure.row, failure.retryable) == (Stage.PREPARE, "one_class", 1, False)


def test_a_process_that_outgrows_its_memory_ends_as_out_of_memory(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, limits={"memory_mib": 20})
    assert run_process(folder).returncode == ExitCode.OUT_OF_MEMORY
    assert json.loads((folder / "failure.json").read_text())["code"] == "out_of_memory"


def test_a_folder_without_a_spec_is_a_usage_error(tmp_path: Path) -> None:
    process = run_process(RunFolder(tmp_path, run_folder(tmp_path / "other").clock))
    assert process.returncode == ExitCode.USAGE
    assert "usage" in process.stderr


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("config.json", None, "bad_model_config"),
        ("config.json", '{"model_type": "gpt2"}', "not_an_encoder"),
        ("model.safetensors", None, "no_weights"),
        ("tokenizer.json", None, "no_fast_tokenizer"),
    ],
)
def test_a_base_model_that_is_none_is_refused_by_name(
    tmp_path: Path, file: str, content: str | None, code: str
) -> None:
    folder = run_folder(tmp_path)
    path = tmp_path / "base" / file
    path.unlink() if content is None else path.write_text(content)
    assert runner(folder).run() is ExitCode.DATA_REFUSED
    failure = Failure.model_validate_json((folder / "failure.json").read_bytes())
    assert (failure.code, failure.field, failure.retryable) == (code, "base_model", False)
    assert failure.hint
    assert str(tmp_path) not in failure.reason


def run_process(folder: RunFolder) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1", KEYS_VARIABLE: str(folder / "keys")}
    command = [sys.executable, "-m", "services.trainer.stages", str(folder.root)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
