"""Each attempt works in a folder of its own, with what the attempt before it had finished."""

from pathlib import Path

from services.trainer.domain.datasets import Example
from services.trainer.domain.spec import RunSpec
from services.trainer.outbound.workspace import Workspace

PROGRESS = (
    '{"at":"2026-01-01T00:00:00Z","stage":"train","fraction":0.5,"message":"step 5 of 10","numbers":{"loss":1.25}}\n'
)


def spec_of(run: str = "run-1") -> RunSpec:
    return RunSpec(run=run, model="m", dataset="d", data=Path("/nowhere"))


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)


def test_the_next_attempt_has_the_finished_stages_and_not_the_failure(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = workspace.begin_attempt(spec_of(), fence=1)
    write(first, {"prepare.json": "{}", "artifact/fp32.onnx": "graph", "failure.json": "{}", "x.partial": "torn"})
    write(first, {"progress.jsonl": PROGRESS})
    second = workspace.begin_attempt(spec_of(), fence=7)
    assert {str(path.relative_to(second)) for path in second.rglob("*")} == {
        "prepare.json", "artifact", "artifact/fp32.onnx", "progress.jsonl", "run.json",
    }  # fmt: skip


def test_a_process_that_lives_on_cannot_change_the_next_attempt(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = workspace.begin_attempt(spec_of(), fence=1)
    write(first, {"checkpoint.safetensors": "old", "progress.jsonl": PROGRESS})
    second = workspace.begin_attempt(spec_of(), fence=2)
    with (first / "progress.jsonl").open("a") as late:
        late.write(PROGRESS)
    (first / "new.partial").write_text("late")
    (first / "new.partial").replace(first / "checkpoint.safetensors")
    assert (second / "checkpoint.safetensors").read_text() == "old"
    assert (second / "progress.jsonl").read_text() == PROGRESS


def test_the_spec_is_fixed_by_the_first_attempt(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.spec("run-1") is None
    workspace.fix_spec(spec_of())
    assert workspace.spec("run-1") == spec_of()


def test_examples_are_written_as_rows(tmp_path: Path) -> None:
    path = Workspace(tmp_path).write_examples("run-1", [Example("größe", "a")])
    assert path.read_text(encoding="utf-8") == '{"text": "größe", "label": "a"}\n'


def test_the_log_reads_as_lines_and_a_half_written_one_waits(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.log_lines("run-1", 0) == []
    folder = workspace.begin_attempt(spec_of(), fence=1)
    (folder / "progress.jsonl").write_text(PROGRESS * 2 + '{"at":"2026')
    assert workspace.log_lines("run-1", 1) == ["00:00:00 train     50% step 5 of 10 loss=1.25"]


def test_ended_runs_lose_their_large_files_and_old_ones_everything(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for run in ("run-1", "run-2", "run-3", "run-4"):
        folder = workspace.begin_attempt(spec_of(run), fence=1)
        write(folder, {"fp32.onnx": "graph", "progress.jsonl": PROGRESS})
        if run != "run-3":
            write(folder, {"result.json": "{}"})
    workspace.tidy("run-4", kept=2)
    assert not (tmp_path / "run-1").exists()
    assert not (tmp_path / "run-2/attempt-1/fp32.onnx").exists()
    assert workspace.log_lines("run-2", 0)
    assert (tmp_path / "run-3/attempt-1/fp32.onnx").exists()  # put back, not ended
    assert (tmp_path / "run-4/attempt-1/fp32.onnx").exists()
