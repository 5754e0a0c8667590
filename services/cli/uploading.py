"""A file's way to the gateway, and how far it is: a bar on a terminal, plain lines elsewhere, nothing with --json."""

import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from services.cli.errors import CliError, Exit
from services.cli.output import Output
from services.cli.rest import Advance
from services.cli.session import Session

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY_BYTES: Final = 16 * 1024 * 1024
KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True)
class Handed:
    """A file to hand over: the data set that it is a content of, and what fixes it."""

    file: Path
    dataset: str
    format: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, file: Path, dataset: str = "") -> Self:
        """Under a name made from the file's where none is given. Raises CliError for a file that is none of ours."""
        kind = kind_of(file.name)
        if not file.is_file():
            raise CliError(f"there is no file {file}", code="missing_file", status=Exit.USAGE)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return cls(file, dataset or dataset_name(file.stem), kind, digest, file.stat().st_size)

    def upload(self, session: Session) -> Any:
        """Where it lies now, with its progress on standard error. Raises CliError."""
        query = {"format": self.format, "sha256": self.sha256, "size_bytes": self.size_bytes}
        with progress(session.out, self.file.name, self.size_bytes) as advance:
            uploaded = session.rest().upload(f"/datasets/{self.dataset}/content", self.file, advance, **query)
        if uploaded["already_there"]:
            session.out.say("this content was there already")
        return uploaded


def kind_of(name: str) -> str:
    """`jsonl` or `csv`, by the name's ending. Raises CliError for any other."""
    kind = name.rpartition(".")[2].lower()
    if kind not in {"jsonl", "csv"}:
        raise CliError(f"{name} is neither .jsonl nor .csv", code="unknown_format", status=Exit.USAGE)
    return kind


def dataset_name(stem: str) -> str:
    """A file's name as the name of a data set: lower case, other characters become dashes."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-")[:63].strip("._-")
    return cleaned or "data"


@contextmanager
def progress(out: Output, name: str, size: int) -> Iterator[Advance]:
    """What to tell of every part that has gone."""
    if out.as_json:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(name, total=size)
            yield lambda count: bar.update(task, advance=count)
    else:
        yield _Lines(out, name, size).advance


class _Lines:
    """One line every 16 MiB, and one at the end."""

    def __init__(self, out: Output, name: str, size: int) -> None:
        self._out = out
        self._name = name
        self._size = size
        self._gone = 0
        self._text = 0

    def advance(self, count: int) -> None:
        self._gone += count
        if self._gone - self._text >= LINE_EVERY_BYTES or self._gone == self._size:
            self._text = self._gone
            unit, name = (MIB, "MiB") if self._size >= MIB else (KIB, "KiB")
            self._out.say(f"{self._name}: {self._gone / unit:.1f} of {self._size / unit:.1f} {name}")


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
