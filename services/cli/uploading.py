"""A file's way to the gateway, and how far it is: a bar on a terminal, plain lines elsewhere, nothing with --json."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.cli.output import Output

if TYPE_CHECKING:
    from rich.progress import Progress

CHUNK: Final = 256 * 1024
LINE_EVERY_BYTES: Final = 16 * 1024 * 1024
KIB: Final = 1024
MIB: Final = 1024 * KIB

Advance = Callable[[int], None]


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def chunks_of(file: Path, advance: Advance) -> Iterator[bytes]:
    """The file part by part; `advance` hears of each part once the connection has taken it."""
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            yield chunk
            advance(len(chunk))


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
        self._told = 0

    def advance(self, count: int) -> None:
        self._gone += count
        if self._gone - self._told >= LINE_EVERY_BYTES or self._gone == self._size:
            self._told = self._gone
            unit, name = (MIB, "MiB") if self._size >= MIB else (KIB, "KiB")
            self._out.say(f"{self._name}: {self._gone / unit:.1f} of {self._size / unit:.1f} {name}")


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
