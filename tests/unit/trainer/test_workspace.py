"""Each attempt works in a folder of its own, with what the attempt before it had finished."""

from pathlib import Path

from services.trainer.domain.datasets import Example
from services.trainer.domain.spec import TrainingSpec
from services.trainer.outbound.workspace import (
    PROGRESS_BYTES,
    ProgressRead,
    Workspace,
    is_locked,
    last_progress,
    locked,
    log_lines,
    progress_from,
    read_progress,
)

KILLED = '{"stage":"train","code":"killed","reason":"it was killed","retryable":true}'
PROGRESS = (
    '{"at":"2026-01-01T00:00:00Z","stage":"train","fraction":0.5,"message":"step 5 of 10","numbers":{"loss":1.25}}\n'
)


def spec_of(run: str = "run-1") -> TrainingSpec:
    return TrainingSpec(
        run=run, tenant="default", model="m", dataset="d", data_uri="file:///nowhere", artifact_store="file:///store",
        working_uri=f"file:///runs/{run}",
    )  # fmt: skip


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)


def test_the_next_attempt_has_the_finished_stages_and_not_the_failure(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = workspace.begin_attempt(spec_of(), attempt=1)
    write(first, {"prepare.json": "{}", "artifact/fp32.onnx": "graph", "failure.json": "{}", "x.partial": "torn"})
    write(first, {"progress.jsonl": PROGRESS})
    second = workspace.begin_attempt(spec_of(), attempt=7)
    assert {str(path.relative_to(second)) for path in second.rglob("*")} == {
        "prepare.json", "artifact", "artifact/fp32.onnx", "progress.jsonl", "spec.json", "process.lock",
    }  # fmt: skip


def test_a_process_that_lives_on_cannot_change_the_next_attempt(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = workspace.begin_attempt(spec_of(), attempt=1)
    write(first, {"checkpoint.safetensors": "old", "progress.jsonl": PROGRESS})
    second = workspace.begin_attempt(spec_of(), attempt=2)
    with (first / "progress.jsonl").open("a") as late:
        late.write(PROGRESS)
    (first / "new.partial").write_text("late")
    (first / "new.partial").replace(first / "checkpoint.safetensors")
    assert (second / "checkpoint.safetensors").read_text() == "old"
    assert (second / "progress.jsonl").read_text() == PROGRESS


def test_examples_are_written_as_rows(tmp_path: Path) -> None:
    path = Workspace(tmp_path).write_examples("run-1", [Example("größe", "a")])
    assert path.read_text(encoding="utf-8") == '{"text": "größe", "label": "a"}\n'


def test_the_log_reads_as_lines_a_bounded_number_of_them_and_a_half_written_one_waits(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).begin_attempt(spec_of(), attempt=1)
    assert log_lines(folder, 0, 10) == []
    (folder / "progress.jsonl").write_text(PROGRESS * 3 + '{"at":"2026')
    assert log_lines(folder, 2, 10) == ["00:00:00 train     50% step 5 of 10 loss=1.25"]
    assert len(log_lines(folder, 0, 2)) == 2


def test_progress_is_read_from_where_the_reading_ended(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).begin_attempt(spec_of(), attempt=1)
    (folder / "progress.jsonl").write_text(PROGRESS + PROGRESS[:20])
    first = read_progress(folder, 0)
    assert (len(first.steps), first.offset, first.more) == (1, len(PROGRESS), False)
    (folder / "progress.jsonl").write_text(PROGRESS * 2)
    assert len(read_progress(folder, first.offset).steps) == 1
    assert read_progress(folder, 2 * len(PROGRESS)) == ProgressRead([], 2 * len(PROGRESS))


def test_much_progress_is_read_part_by_part_and_its_last_line_at_once(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).begin_attempt(spec_of(), attempt=1)
    assert last_progress(folder) is None
    lines = PROGRESS_BYTES // len(PROGRESS) + 10
    last = PROGRESS.replace("step 5", "step 6")
    (folder / "progress.jsonl").write_text(PROGRESS * lines + last + "{")
    first = read_progress(folder, 0)
    assert first.more
    rest = read_progress(folder, first.offset)
    assert (len(first.steps) + len(rest.steps), rest.more) == (lines + 1, False)
    assert last_progress(folder) == rest.steps[-1]


def test_a_line_that_a_kill_tore_is_not_handed_on(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = workspace.begin_attempt(spec_of(), attempt=1)
    (first / "progress.jsonl").write_text(PROGRESS + '{"at":"2026')
    second = workspace.begin_attempt(spec_of(), attempt=2)
    assert (second / "progress.jsonl").read_text() == PROGRESS
    assert progress_from(second) == len(PROGRESS)


def test_a_folder_is_locked_by_one_and_looking_at_it_changes_nothing(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).begin_attempt(spec_of(), attempt=1)
    assert not is_locked(folder)
    with locked(folder) as first, locked(folder) as second:
        assert first is not None
        assert second is None
        assert is_locked(folder)
    assert not is_locked(folder)


def test_ended_runs_lose_their_large_files_and_old_ones_everything(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for run in ("run-1", "run-2", "run-3", "run-4"):
        folder = workspace.begin_attempt(spec_of(run), attempt=1)
        write(folder, {"fp32.onnx": "graph", "progress.jsonl": PROGRESS})
        if run != "run-3":
            write(folder, {"result.json": "{}"})
        else:
            write(folder, {"failure.json": KILLED})
    workspace.tidy("run-4", limit=2)
    assert not (tmp_path / "run-1").exists()
    assert not (tmp_path / "run-2/attempt-1/fp32.onnx").exists()
    assert log_lines(tmp_path / "run-2/attempt-1", 0, 1)
    assert (tmp_path / "run-3/attempt-1/fp32.onnx").exists()  # put back, not ended
    assert (tmp_path / "run-4/attempt-1/fp32.onnx").exists()


def test_a_folder_that_a_process_works_in_stays_however_old_it_is(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    folder = workspace.begin_attempt(spec_of(), attempt=1)
    with locked(folder):
        workspace.tidy("run-9", limit=0)
        assert folder.exists()
    workspace.tidy("run-9", limit=0)
    assert not folder.exists()
