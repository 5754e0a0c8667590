"""Child processes that cannot outlive their parent, and that end within a limit when told to."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from services.kit.core.clock import Clock

PR_SET_PDEATHSIG: Final = 1
POLL_SECONDS: Final = 0.05

QUIET_MATH: Final = {
    # Several processes share few cores: a spinning OpenMP thread costs more than it computes.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc keeps up to 8 arenas a core; two are enough here and save tens of megabytes a process.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""Set for every child, unless the caller's own environment says otherwise."""

_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    folder: Path | None = None,
    parent_death: signal.Signals | None = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Starts `command` as leader of its own process group, its output appended to `log`.

    On Linux it gets `parent_death` when the calling process ends for whatever reason, SIGKILL included;
    with None it lives on.
    Raises FileNotFoundError when there is no such program.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()

    def bind_to_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a mask is inherited: the child would never see SIGTERM
        if _prctl is not None and parent_death is not None:
            _prctl(PR_SET_PDEATHSIG, int(parent_death), 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            preexec_fn=bind_to_parent,  # noqa: PLW1509 - callers have no second thread yet
        )


def stop(process: subprocess.Popen[bytes], *, limit_seconds: float) -> bool:
    """Asks the process to end, and kills its whole group when it has not after `limit_seconds`.

    True when it ended by itself. What it left behind in its group is killed in any case.
    """
    ended = True
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            ended = False
    kill_group(process)
    return ended


async def run(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], limit_seconds: float, clock: Clock
) -> None:
    """Runs `command` to its end, as `spawn` does; its whole group is killed then, or after `limit_seconds`."""
    process = spawn(command, log=log, environment=environment)
    started = clock.monotonic()
    while process.poll() is None and clock.monotonic() - started < limit_seconds:
        await clock.sleep(POLL_SECONDS)
    kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends every process of the group that `process` leads, and waits for the leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in the group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def alive(pid: int) -> bool:
    """Whether a process with this id runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return not Path("/proc/self/stat").exists()
    return state != "Z"
