"""The folders of runs on disk.

```
runs/<run>/examples.jsonl          labelled traffic, fixed by the first attempt
runs/<run>/data                    the data set, where it lies in a store that is not a folder
runs/<run>/champion/<digest>/      the checked artifact that the run is compared with
runs/<run>/attempt-<number>/       the run folder that a child process works in
    spec.json, run.json, ...       as `services/trainer/domain/spec.py` lists them
    handle.json                    the attempt's handle
    process.lock                   locked by the child process, from its first moment to its last; says at which byte
                                   of the progress file the attempt began
    cancelled                      there once somebody asked the attempt to stop
```

A later attempt links what an earlier one finished. Stages replace files and never write into one, so that a
process that is thought dead and lives on can only change its own folder.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.trainer.domain.datasets import Example
from services.trainer.domain.spec import (
    FAILURE_FILE,
    LOG_FILE,
    PROGRESS_FILE,
    RESULT_FILE,
    RUN_FILE,
    SPEC_FILE,
    Failure,
    Progress,
    TrainingSpec,
)

EXAMPLES_FILE: Final = "examples.jsonl"
HANDLE_FILE: Final = "handle.json"
LOCK_FILE: Final = "process.lock"
CANCELLED_FILE: Final = "cancelled"
_SUBMIT_LOCK_FILE: Final = "submit.lock"
_ATTEMPT: Final = "attempt-"
_OF_ONE_ATTEMPT: Final = (SPEC_FILE, RUN_FILE, FAILURE_FILE, RESULT_FILE, HANDLE_FILE, LOCK_FILE, CANCELLED_FILE)
_RETAINED_OF_ENDED: Final = frozenset({PROGRESS_FILE, LOG_FILE, *_OF_ONE_ATTEMPT})
LOG_BYTES: Final = 64 * 1024 * 1024
"""The most of a progress file that is read for its lines."""
PROGRESS_BYTES: Final = 1024 * 1024
"""The most of it that is read at once to be reported; far longer than a line."""


class Workspace:
    """Blocking file work: call it on a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run_folder(self, run: str) -> Path:
        return self.root / run

    def write_examples(self, run: str, examples: Sequence[Example]) -> Path:
        path = self.run_folder(run) / EXAMPLES_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = ({"text": example.text, "label": example.label} for example in examples)
        replace_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return path

    def attempt_folder(self, run: str, attempt: int) -> Path:
        return self.run_folder(run) / f"{_ATTEMPT}{attempt}"

    def begin_attempt(self, spec: TrainingSpec, attempt: int) -> Path:
        """Its folder, with what the attempt before it had finished."""
        folder = self.attempt_folder(spec.run, attempt)
        shutil.rmtree(folder, ignore_errors=True)
        before = self._latest_attempt(spec.run)
        folder.mkdir(parents=True)
        if before is not None:
            _take_over(before, folder)
        replace_file(folder / SPEC_FILE, spec.model_dump_json(indent=1))
        progress = folder / PROGRESS_FILE
        (folder / LOCK_FILE).write_text(str(progress.stat().st_size if progress.exists() else 0))
        return folder

    @contextmanager
    def submitting(self, run: str) -> Iterator[bool]:
        """False while another process submits an attempt at this run."""
        self.run_folder(run).mkdir(parents=True, exist_ok=True)
        with (self.run_folder(run) / _SUBMIT_LOCK_FILE).open("ab") as file:
            yield _lock(file.fileno())

    def attempts(self) -> Iterator[Path]:
        """The folder of every attempt at every run."""
        yield from self.root.glob(f"*/{_ATTEMPT}*")

    def tidy(self, current: str, limit: int) -> None:
        """Drops the large files of ended runs, and all of those beyond the `kept` newest.

        `current`, and what a process still works in, are left alone.
        """
        if not self.root.is_dir():
            return
        others = (path for path in self.root.iterdir() if path.is_dir() and path.name != current)
        for index, folder in enumerate(sorted(others, reverse=True)):
            if any(is_locked(attempt) for attempt in folder.glob(f"{_ATTEMPT}*")):
                continue
            if index >= limit:
                shutil.rmtree(folder, ignore_errors=True)
            elif self._has_ended(folder.name):
                _strip(folder)

    def _latest_attempt(self, run: str) -> Path | None:
        return max(self.run_folder(run).glob(f"{_ATTEMPT}*"), key=attempt_number, default=None)

    def _has_ended(self, run: str) -> bool:
        """Whether no further attempt will need its files."""
        latest = self._latest_attempt(run)
        if latest is None:
            return False
        failure = latest / FAILURE_FILE
        if failure.exists():
            return not Failure.model_validate_json(failure.read_bytes()).retryable
        return (latest / RESULT_FILE).exists()


def attempt_number(folder: Path) -> int:
    return int(folder.name.removeprefix(_ATTEMPT))


def progress_from(attempt: Path) -> int:
    """The byte of its progress file that it began at itself."""
    return int((attempt / LOCK_FILE).read_text())


def is_locked(attempt: Path) -> bool:
    """Whether a process works in this attempt's folder, in whatever container: the kernel knows."""
    try:
        with (attempt / LOCK_FILE).open("ab") as file:
            return not _lock(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


@contextmanager
def locked(attempt: Path) -> Iterator[int | None]:
    """The descriptor of the attempt's lock, for a child to inherit; None while another process has it."""
    with (attempt / LOCK_FILE).open("ab") as file:
        yield file.fileno() if _lock(file.fileno()) else None


def _lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def log_lines(attempt: Path, after: int, limit: int) -> list[str]:
    """At most `limit` lines of its progress from line `after` on, counted from 0."""
    try:
        with (attempt / PROGRESS_FILE).open("rb") as file:
            complete = file.read(LOG_BYTES).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [_as_line(Progress.model_validate_json(line)) for line in complete[after : after + limit]]


@dataclass(frozen=True)
class ProgressRead:
    """Complete lines of a progress file, the byte to read from next, and whether more may lie behind it."""

    steps: list[Progress]
    offset: int
    more: bool = False


def read_progress(attempt: Path, offset: int) -> ProgressRead:
    """What was appended since that byte, at most `PROGRESS_BYTES` at once."""
    try:
        with (attempt / PROGRESS_FILE).open("rb") as file:
            file.seek(offset)
            content = file.read(PROGRESS_BYTES)
    except FileNotFoundError:
        return ProgressRead([], offset)
    complete = content[: content.rfind(b"\n") + 1]
    steps = [Progress.model_validate_json(line) for line in complete.splitlines()]
    return ProgressRead(steps, offset + len(complete), more=len(content) == PROGRESS_BYTES)


def last_progress(attempt: Path) -> Progress | None:
    """The last complete line; None before there is one."""
    try:
        with (attempt / PROGRESS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - PROGRESS_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    return Progress.model_validate_json(lines[-1]) if lines else None


def replace_file(path: Path, content: str) -> None:
    """In one step, synced to the disk."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _take_over(before: Path, folder: Path) -> None:
    for path in sorted(before.rglob("*")):
        name = path.relative_to(before)
        if path.is_dir():
            if not name.parts[0].endswith(".partial"):
                (folder / name).mkdir()
        elif name.name == LOG_FILE:
            shutil.copyfile(path, folder / name)
        elif name.name == PROGRESS_FILE:
            content = path.read_bytes()
            (folder / name).write_bytes(content[: content.rfind(b"\n") + 1])  # a kill may have torn the last line
        elif name.name not in _OF_ONE_ATTEMPT and not any(part.endswith(".partial") for part in name.parts):
            os.link(path, folder / name)


def _strip(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.name not in _RETAINED_OF_ENDED:
            path.unlink(missing_ok=True)


def _as_line(progress: Progress) -> str:
    numbers = " ".join(f"{name}={value:.4g}" for name, value in progress.numbers.items())
    return f"{progress.at:%H:%M:%S} {progress.stage:<8} {progress.fraction:>4.0%} {progress.message} {numbers}".rstrip()
