"""A run folder: the spec, what each finished stage left behind, and the progress told so far."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from services.kit.core.clock import Clock
from services.trainer.domain.spec import PROGRESS_FILE, RUN_FILE, DataContent, Progress, Stage
from services.trainer.stages.spec import RunSpec

M = TypeVar("M", bound=BaseModel)
_PARTIAL: Final = ".partial"


class Finished(BaseModel):
    """What a stage leaves behind; `inputs` is the hash of all that it depended on."""

    inputs: str


F = TypeVar("F", bound=Finished)


class RunFolder:
    """All files of one run. Nothing is readable under its name before it is complete and on disk."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.root = root
        self.clock = clock

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def spec(self) -> RunSpec:
        return RunSpec.model_validate_json((self / RUN_FILE).read_bytes())

    def write(self, name: str, content: bytes) -> None:
        """Replaces the file in one step."""
        partial = self / (name + _PARTIAL)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.commit(partial, name)

    def commit(self, partial: Path, name: str) -> None:
        """Gives a complete, synced file its name."""
        partial.replace(self / name)
        folder = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def keep(self, stage: Stage, finished: Finished) -> None:
        """Marks the stage as done; its other files must be complete by now."""
        self.write(f"{stage}.json", finished.model_dump_json(indent=1).encode())

    def cached_result(self, stage: Stage, inputs: str, kind: type[F]) -> F | None:
        """What the stage left when it ran on the same inputs, or None when it must run."""
        try:
            finished = kind.model_validate_json((self / f"{stage}.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return finished if finished.inputs == inputs else None

    def report(
        self,
        stage: Stage,
        fraction: float,
        message: str,
        numbers: Mapping[str, float] | None = None,
        content: DataContent | None = None,
    ) -> None:
        """Appends a line to the progress file."""
        progress = Progress(
            at=self.clock.now(),
            stage=stage,
            fraction=min(1.0, fraction),
            message=message,
            numbers=dict(numbers or {}),
            content=content,
        )
        with (self / PROGRESS_FILE).open("a", encoding="utf-8") as file:
            file.write(progress.model_dump_json() + "\n")


def hash_of(*parts: object) -> str:
    """SHA-256 over the canonical JSON of the parts."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
