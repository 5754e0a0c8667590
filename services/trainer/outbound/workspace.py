"""The folders of runs on disk.

```
runs/<run>/spec.json               what the run depends on, fixed by its first attempt
runs/<run>/examples.jsonl          labelled traffic, fixed likewise
runs/<run>/data                    the data set, where it lies in a store that is not a folder
runs/<run>/champion/<digest>/      the checked artifact that the run is compared with
runs/<run>/attempt-<fence>/        the run folder that a child process works in
```

A later attempt links what an earlier one finished. Stages replace files and never write into one, so that a
process that lost its lease and lives on can only change its own folder.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.trainer.domain.datasets import Example
from services.trainer.domain.spec import FAILURE_FILE, LOG_FILE, PROGRESS_FILE, RESULT_FILE, RUN_FILE, Progress, RunSpec

SPEC_FILE: Final = "spec.json"
EXAMPLES_FILE: Final = "examples.jsonl"
DATA_FILE: Final = "data"
CHAMPION_FOLDER: Final = "champion"
_ATTEMPT: Final = "attempt-"
_COPIED: Final = (PROGRESS_FILE, LOG_FILE)
_LEFT: Final = (RUN_FILE, FAILURE_FILE, RESULT_FILE)
_KEPT_OF_ENDED: Final = frozenset({SPEC_FILE, *_COPIED, *_LEFT})


class Workspace:
    """Blocking file work: call it on a thread."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def run_folder(self, run: str) -> Path:
        folder = self._root / run
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def spec(self, run: str) -> RunSpec | None:
        """What the first attempt fixed; None before it has."""
        path = self._root / run / SPEC_FILE
        return RunSpec.model_validate_json(path.read_bytes()) if path.exists() else None

    def fix_spec(self, spec: RunSpec) -> None:
        _replace(self.run_folder(spec.run) / SPEC_FILE, spec.model_dump_json(indent=1))

    def write_examples(self, run: str, examples: Sequence[Example]) -> Path:
        path = self.run_folder(run) / EXAMPLES_FILE
        rows = ({"text": example.text, "label": example.label} for example in examples)
        _replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return path

    def begin_attempt(self, spec: RunSpec, fence: int) -> Path:
        """The folder for this fence, with what the attempt before it had finished."""
        folder = self.run_folder(spec.run) / f"{_ATTEMPT}{fence}"
        shutil.rmtree(folder, ignore_errors=True)
        before = self._latest_attempt(spec.run)
        folder.mkdir()
        if before is not None:
            _adopt(before, folder)
        _replace(folder / RUN_FILE, spec.model_dump_json(indent=1))
        return folder

    def log_lines(self, run: str, after: int) -> list[str]:
        latest = self._latest_attempt(run)
        if latest is None or not (latest / PROGRESS_FILE).exists():
            return []
        complete = (latest / PROGRESS_FILE).read_text(encoding="utf-8").split("\n")[:-1]
        return [_as_line(Progress.model_validate_json(line)) for line in complete[after:]]

    def tidy(self, current: str, kept: int) -> None:
        """Drops the large files of ended runs, and all of those beyond the `kept` newest; `current` is left alone."""
        if not self._root.is_dir():
            return
        others = sorted((path for path in self._root.iterdir() if path.is_dir() and path.name != current), reverse=True)
        for place, folder in enumerate(others):
            if place >= kept:
                shutil.rmtree(folder, ignore_errors=True)
            elif self._has_ended(folder.name):
                _strip(folder)

    def _latest_attempt(self, run: str) -> Path | None:
        found = list((self._root / run).glob(f"{_ATTEMPT}*"))
        return max(found, key=lambda path: int(path.name.removeprefix(_ATTEMPT)), default=None)

    def _has_ended(self, run: str) -> bool:
        latest = self._latest_attempt(run)
        return latest is not None and any((latest / name).exists() for name in (RESULT_FILE, FAILURE_FILE))


def _adopt(before: Path, folder: Path) -> None:
    for path in sorted(before.rglob("*")):
        name = path.relative_to(before)
        if path.is_dir():
            if not name.parts[0].endswith(".partial"):
                (folder / name).mkdir()
        elif name.name in _COPIED:
            shutil.copyfile(path, folder / name)
        elif name.name not in _LEFT and not any(part.endswith(".partial") for part in name.parts):
            os.link(path, folder / name)


def _strip(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.name not in _KEPT_OF_ENDED:
            path.unlink(missing_ok=True)


def _replace(path: Path, content: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _as_line(progress: Progress) -> str:
    numbers = " ".join(f"{name}={value:.4g}" for name, value in progress.numbers.items())
    return f"{progress.at:%H:%M:%S} {progress.stage:<8} {progress.fraction:>4.0%} {progress.message} {numbers}".rstrip()
