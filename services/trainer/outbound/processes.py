"""Processes that outlive the one that started them: known from whoever gets their id later, and ended as a whole."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from signal import Signals
from typing import Final

import psutil

_PROC: Final = Path("/proc")
_PROC_STAT: Final = _PROC / "self/stat"
_START_TIME: Final = 19
"""The 22nd field of /proc/PID/stat (proc(5)), counted from the one after the command's name."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, once and for all: ids are used again, but not with the same start on the same boot of the machine."""

    pid: int
    boot: str
    """Empty where the system has no name for it."""
    started: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """None where no such process runs; a zombie does not."""
        if _PROC_STAT.exists():
            return cls._of_proc(pid)
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, "", repr(process.create_time()))
        except psutil.NoSuchProcess:
            return None

    @classmethod
    def _of_proc(cls, pid: int) -> "ProcessIdentity | None":
        """Ticks since the boot, which no change of the wall clock moves as it moves `psutil`'s creation time."""
        try:
            fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in ("Z", "X") else cls(pid, this_boot(), fields[_START_TIME])

    @classmethod
    def from_reference(cls, reference: dict[str, str]) -> "ProcessIdentity":
        return cls(int(reference["pid"]), reference["boot"], reference["started"])

    def reference(self) -> dict[str, str]:
        return {"pid": str(self.pid), "boot": self.boot, "started": self.started}

    def lives(self) -> bool:
        return ProcessIdentity.of(self.pid) == self

    def send(self, number: Signals) -> None:
        """To the process alone; nothing where it has ended."""
        if self.lives():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def send_group(self, number: Signals) -> None:
        """To every process of the group that it leads; nothing where it has ended."""
        if self.lives():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)


@cache
def this_boot() -> str:
    """Names the time since the machine was started; empty where the system has no name for it."""
    path = _PROC / "sys/kernel/random/boot_id"
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def marked(variable: str, value: str) -> Iterator[psutil.Process]:
    """Every process of this user that was started with `variable` set to `value`, or by one that was."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def leader_of(variable: str, value: str) -> ProcessIdentity | None:
    """The marked process that leads its session; None where there is none."""
    for process in marked(variable, value):
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == process.pid:
                return ProcessIdentity.of(process.pid)
    return None


def kill_marked(variable: str, value: str) -> None:
    """Whatever carries the mark; `psutil` makes sure that an id was not given to another process meanwhile."""
    for process in marked(variable, value):
        with suppress(psutil.NoSuchProcess):
            process.kill()
