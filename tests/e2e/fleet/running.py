"""Starts the fleet, kills parts of it, and tells when they are back."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from services.cli.home import Home
from services.cli.launcher.launch import tail
from services.cli.launcher.processes import spawn
from services.cli.launcher.state import FAILED, READY, FleetState
from tests.unit.trainer.tiny import base_model
from tests.waiting import until

SERVICES: Final = ("gateway", "trainer", "registry", "inference", "monitor")
START_SECONDS: Final = 120.0
BACK_SECONDS: Final = 90.0
"""A service takes some seconds itself; a consumer group waits ten for its killed member, and machines are busy."""

SETTINGS: Final = {
    "MILLRACE_GATEWAY_READY_WAIT_SECONDS": "45",
    "MILLRACE_GATEWAY_REQUEST_SECONDS": "60",
    "MILLRACE_TRAINER_THREADS": "1",
    "MILLRACE_TRAINER_FROZEN_LAYERS": "0",
    "MILLRACE_TRAINER_CHECKPOINT_STEPS": "20",
    "MILLRACE_TRAINER_LEASE_SECONDS": "3",
    "MILLRACE_REGISTRY_CANARY_WEIGHTS": "[30, 60]",
    "MILLRACE_REGISTRY_BAKE_SECONDS": "1",
    "MILLRACE_REGISTRY_MINIMUM_REQUESTS": "10",
    "MILLRACE_REGISTRY_STEP_TIMEOUT_SECONDS": "180",
    "MILLRACE_REGISTRY_MIRROR": "1.0",
    "MILLRACE_REGISTRY_DRAIN_SECONDS": "1",
    "MILLRACE_REGISTRY_SETTLE_SECONDS": "3",
    # 240 rows and a network of 16 dimensions: the gate is to look, not to be hard to pass.
    "MILLRACE_REGISTRY_GATE_MINIMUM_TEST_ROWS": "20",
    "MILLRACE_REGISTRY_GATE_MARGIN": "0.3",
    "MILLRACE_REGISTRY_GATE_FLOOR_MARGIN": "0.6",
    "MILLRACE_INFERENCE_DRAIN_GRACE_SECONDS": "1",
    "MILLRACE_INFERENCE_HEARTBEAT_SECONDS": "1",
    "MILLRACE_MONITOR_WINDOW_ROWS": "40",
    # Drift has its own tests: here no window may ask for a run of its own.
    "MILLRACE_MONITOR_CONSECUTIVE_WINDOWS": "20",
    "MILLRACE_MONITOR_MINIMUM_REQUESTS": "10",
    "MILLRACE_MONITOR_CORRECTNESS_MARGIN": "0.3",
    # A stopped process makes answers slow; that is not what these stories are about.
    "MILLRACE_MONITOR_SLOW_MS": "30000",
    "MILLRACE_MONITOR_JUDGE_SECONDS": "0.2",
    "MILLRACE_MONITOR_REPEAT_SECONDS": "0.5",
}


@dataclass(frozen=True)
class Fleet:
    """A supervisor in a process of its own, and what it runs."""

    home: Home
    process: "subprocess.Popen[bytes]"

    @property
    def state(self) -> FleetState:
        state = FleetState.read(self.home.endpoints_file)
        assert state is not None, f"nothing runs in {self.home.root}"
        return state

    @property
    def key(self) -> str:
        return self.home.api_key_file.read_text().strip()

    def pid(self, service: str) -> int:
        return self.state.part(service).pid

    def is_ready(self, service: str) -> bool:
        """What the service itself answers now."""
        try:
            return httpx.get(f"http://{self.state.part(service).http}/readyz", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def kill(self, *services: str) -> None:
        """SIGKILL to each, at one moment; returns once each is ready again as another process."""
        before = {name: self.state.part(name) for name in services}
        for part in before.values():
            os.kill(part.pid, signal.SIGKILL)
        for name, part in before.items():
            until(lambda: self._is_back(name, part.pid), f"{name} is back ({self.home.root})", BACK_SECONDS)  # noqa: B023

    def _is_back(self, service: str, former: int) -> bool:
        part = self.state.part(service)
        return part.pid != former and part.state == READY and self.is_ready(service)

    def rows(self, service: str, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What a service's SQLite file holds, read beside it."""
        path = self.home.data / service / "state.db"
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(query, parameters).fetchall()


@contextmanager
def another_replica(fleet: Fleet, name: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A second inference process of the fleet, started by hand beside the supervisor's."""
    log = fleet.home.log_of(name)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MILLRACE_", "OTEL_"))}
    environment |= {key: value for key, value in SETTINGS.items() if key.startswith("MILLRACE_INFERENCE_")}
    environment |= {
        "MILLRACE_HOME": str(fleet.home.root),
        "KAFKA_BOOTSTRAP_SERVERS": fleet.state.endpoints["kafka"],
        "MILLRACE_INFERENCE_REPLICA": name,
        "MILLRACE_INFERENCE_HTTP_PORT": "0",
        "MILLRACE_INFERENCE_GRPC_PORT": "0",
        "PYTHONPATH": str(Path.cwd()),
    }
    process = spawn([sys.executable, "-m", "services.inference"], log=log, environment=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def running_fleet(root: Path, *, bootstrap: str = "", **settings: str) -> Iterator[Fleet]:
    """All five services ready in `root`, on the broker at `bootstrap` or, without one, on an embedded one.

    `settings` come on top of `SETTINGS`. Fails the test with the log's end when they do not come up.
    """
    home = Home(root.resolve())
    home.datasets.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "OTEL_"))}
    environment |= SETTINGS | {"MILLRACE_TRAINER_BASE_MODEL": str(base_model(home.root / "base"))} | settings
    environment |= {"PYTHONPATH": str(Path.cwd())}
    log = home.log_of("supervisor")
    command = [sys.executable, "-m", "services.cli.launcher.supervisor", "--home", str(home.root)]
    command += ["--broker", "external", "--bootstrap", bootstrap] if bootstrap else ["--broker", "embedded"]
    process = spawn(command, log=log, environment=environment)

    def is_up() -> bool:
        state = FleetState.read(home.endpoints_file)
        assert process.poll() is None, tail(log, 40)
        assert state is None or state.state != FAILED, state.problem
        return state is not None and state.state == READY

    try:
        until(is_up, f"the fleet in {home.root} is ready", START_SECONDS)
        yield Fleet(home, process)
    finally:
        process.terminate()
        process.wait(60)
