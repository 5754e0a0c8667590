"""Starting what is measured, and reading what its processes cost."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

START_SECONDS: Final = 120.0
SETTLE_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Fleet:
    """A Millrace that runs in a folder of its own."""

    home: Path
    seconds_to_ready: float
    rest: str
    key: str
    processes: dict[str, psutil.Process]
    """By part: broker, gateway, trainer, registry, inference, monitor, supervisor."""

    def cpu_seconds(self) -> float:
        """User and system time of all parts so far, of children that have ended too."""
        return sum(sum(process.cpu_times()[:4]) for process in self.processes.values())

    def memory_mb(self) -> dict[str, float]:
        """Proportional set size: what is shared between processes is counted once."""
        return {name: process.memory_full_info().pss / 1e6 for name, process in self.processes.items()}

    def millrace(self, *arguments: str) -> Any:
        return millrace(self.home, *arguments)


def millrace(home: Path, *arguments: str) -> Any:
    """Runs the command with `--json`; its document. Raises CalledProcessError."""
    command = [sys.executable, "-m", "services.cli", *arguments, "--json"]
    environment = {**os.environ, "MILLRACE_HOME": str(home)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, timeout=START_SECONDS)
    return json.loads(done.stdout)


@contextmanager
def running_fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        home = Path(folder)
        started = time.monotonic()
        millrace(home, "up", "--detach")
        seconds = time.monotonic() - started
        try:
            status = millrace(home, "status")
            processes = {name: psutil.Process(part["pid"]) for name, part in status["services"].items()}
            broker = json.loads((home / "run" / "broker.json").read_text())
            processes["broker"] = psutil.Process(broker["pid"])
            processes["supervisor"] = processes["gateway"].parent() or processes["gateway"]
            key = Path(status["api_key_file"]).read_text().strip()
            yield Fleet(home, seconds, status["endpoints"]["rest"], key, processes)
        finally:
            millrace(home, "down")


@contextmanager
def running_broker(kind: str) -> Iterator[str]:
    """`embedded` or `kafka`; its bootstrap address."""
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", f"services.cli.launcher.{kind}", "--ready-file", str(ready)]
        command += ["--data", str(Path(folder) / "data")] if kind == "kafka" else []
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            give_up = time.monotonic() + START_SECONDS
            while not ready.exists():
                if time.monotonic() > give_up or process.poll() is not None:
                    raise RuntimeError("the broker did not start")
                time.sleep(0.05)
            yield json.loads(ready.read_text())["bootstrap"]
        finally:
            process.terminate()
            process.wait(30)
