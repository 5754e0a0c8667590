"""Starting and stopping the supervisor from a command, and waiting for what it tells."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.cli.home import Home
from services.cli.launcher.fleet import CLEAN_UPS, BrokerKind
from services.cli.launcher.probe import status_of
from services.cli.launcher.processes import alive, run, spawn
from services.cli.launcher.state import FAILED, READY, FleetState, is_held
from services.kit.core.clock import Clock

LOOK_SECONDS: Final = 0.1
READY_LIMIT_SECONDS: Final = 900.0
STOP_LIMIT_SECONDS: Final = 90.0
CLEAN_UP_SECONDS: Final = 20.0
TAIL_LINES: Final = 12

SUPERVISOR_LOG: Final = "supervisor"

Progress = Callable[[FleetState], None]


class LaunchFailed(RuntimeError):
    """The fleet did not come up, or did not go down; the message says why."""


@dataclass(frozen=True)
class LaunchOptions:
    """How to start: which broker, and settings for the services on top of the caller's own environment."""

    broker: BrokerKind = "embedded"
    bootstrap: str = ""
    detach: bool = True
    settings: Mapping[str, str] | None = None


def is_running(home: Home) -> bool:
    """Whether a supervisor lives in this folder."""
    return is_held(home.lock_file)


def running_state(home: Home) -> FleetState | None:
    """What runs, or None when nothing does."""
    return FleetState.read(home.endpoints_file) if is_running(home) else None


async def start(home: Home, options: LaunchOptions, clock: Clock, progress: Progress) -> FleetState:
    """Starts the supervisor and returns once every service is ready.

    Not detached, it ends with the calling process. Raises LaunchFailed with the end of the log that tells why.
    """
    home.endpoints_file.unlink(missing_ok=True)
    log = home.log_of(SUPERVISOR_LOG)
    command = [sys.executable, "-m", "services.cli.launcher.supervisor", "--home", str(home.root)]
    command += ["--broker", options.broker, "--bootstrap", options.bootstrap]
    environment = {**os.environ, **(options.settings or {})}
    # A supervisor that is told to end ends its children in order; a detached one is told by `millrace down` alone.
    death = None if options.detach else signal.SIGTERM
    process = spawn(command, log=log, environment=environment, parent_death=death)
    waited = 0.0
    while waited < READY_LIMIT_SECONDS:
        state = FleetState.read(home.endpoints_file)
        if state is not None:
            progress(state)
        if state is not None and state.state == READY:
            return state
        if process.poll() is not None:
            raise LaunchFailed(_why(state, log))
        await clock.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
    process.terminate()
    raise LaunchFailed(f"not ready within {READY_LIMIT_SECONDS:.0f} s; see {log}")


async def stop(home: Home, clock: Clock, progress: Progress) -> bool:
    """Asks the supervisor to stop everything, and returns once it has. False when nothing ran.

    A supervisor that does not end is killed, and so is what it started.
    """
    state = running_state(home)
    if state is None:
        return False
    _signal(state.supervisor_pid, signal.SIGTERM)
    waited = 0.0
    while is_running(home) and waited < STOP_LIMIT_SECONDS:
        await clock.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
        now = FleetState.read(home.endpoints_file)
        if now is not None:
            progress(now)
    if is_running(home):
        for pid in (state.supervisor_pid, *(part.pid for part in state.parts)):
            _signal(pid, signal.SIGKILL)
        await _clean_up(home, clock)
    home.endpoints_file.unlink(missing_ok=True)
    return True


async def _clean_up(home: Home, clock: Clock) -> None:
    """Ends what killed services had started themselves."""
    environment = {**os.environ, "MILLRACE_HOME": str(home.root)}
    for name, argument in CLEAN_UPS.items():
        await run(
            [sys.executable, "-m", f"services.{name}", argument],
            log=home.log_of(name),
            environment=environment,
            limit_seconds=CLEAN_UP_SECONDS,
            clock=clock,
        )


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log; empty when there is none."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _signal(pid: int, number: signal.Signals) -> None:
    if pid and alive(pid):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _why(state: FleetState | None, supervisor_log: Path) -> str:
    """The supervisor's reason and the end of the log that it names."""
    if state is None or state.state != FAILED:
        return f"the supervisor ended:\n{tail(supervisor_log)}"
    named = state.problem.rpartition("its log: ")[2]
    return f"{state.problem}\n{tail(Path(named))}" if named != state.problem else state.problem


async def describe(home: Home, state: FleetState) -> dict[str, Any]:
    """What `status --json` gives: the supervisor's word, and each service asked now."""
    services = [part for part in state.parts if part.http]
    answers = await asyncio.gather(
        *(status_of(part.http, path) for part in services for path in ("/healthz", "/readyz"))
    )
    health = {
        part.name: "ready" if answers[2 * index + 1] == 200 else "alive" if answers[2 * index] == 200 else "silent"
        for index, part in enumerate(services)
    }
    return {
        "state": state.state,
        "home": state.home,
        "broker": state.broker,
        "endpoints": state.endpoints,
        "api_key_file": state.api_key_file,
        "services": {
            part.name: {
                "health": health[part.name],
                "state": part.state,
                "pid": part.pid,
                "http": f"http://{part.http}",
                "grpc": part.grpc,
                "restarts": part.restarts,
                "log": part.log,
            }
            for part in services
        },
        "logs": str(home.logs),
    }
