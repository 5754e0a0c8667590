"""What the supervisor tells about itself: `run/endpoints.json`, and a lock that it holds while it lives."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

STARTING: Final = "starting"
READY: Final = "ready"
RESTARTING: Final = "restarting"
STOPPING: Final = "stopping"
FAILED: Final = "failed"


@dataclass
class PartState:
    """A process of the fleet: the broker or a service."""

    name: str
    log: str
    state: str = STARTING
    pid: int = 0
    restarts: int = 0
    http: str = ""
    grpc: str = ""


@dataclass
class FleetState:
    """Everything a client needs to reach what runs."""

    home: str
    broker: str
    api_key_file: str
    supervisor_pid: int
    state: str = STARTING
    problem: str = ""
    endpoints: dict[str, str] = field(default_factory=dict)
    parts: list[PartState] = field(default_factory=list)

    def part(self, name: str) -> PartState:
        return next(part for part in self.parts if part.name == name)

    def write(self, path: Path) -> None:
        """Atomically: a reader sees the old state or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> "FleetState | None":
        """None where nothing was started. Fields of a newer version are ignored."""
        try:
            part = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        parts = [PartState(**_known(PartState, part)) for part in part["parts"]]
        return cls(**{**_known(cls, part), "parts": parts})


def _known(kind: Any, part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name in kind.__dataclass_fields__}


class Lock:
    """An exclusive lock on a file; the kernel lets it go when its holder ends, however it ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a")

    def take(self) -> bool:
        """False when another process holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._file.close()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock."""
    if not path.exists():
        return False
    lock = Lock(path)
    try:
        return not lock.take()
    finally:
        lock.close()
