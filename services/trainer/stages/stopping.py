"""How a run is stopped: by SIGTERM, between two steps, or when it outgrows its memory; and what it started, with it."""

import ctypes
import gc
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from services.trainer.domain.spec import PARENT_VARIABLE
from services.trainer.errors import Interrupted

_PR_SET_PDEATHSIG: Final = 1
_WATCHED_EVERY_SECONDS: Final = 0.2


class Stopping:
    """Set by a signal, looked at between steps."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """From now on SIGTERM and SIGINT ask the run to stop at the next step."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)

    def check(self) -> None:
        """Raises Interrupted when the run was told to stop."""
        if self.requested:
            raise Interrupted

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent dies; ends at once when the parent has died already.

    For what a run starts, not for the run: that one outlives the service.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or not hasattr(signal, "SIGKILL") or not Path("/proc/self").exists():
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        os._exit(1)


def watch_memory(limit_mib: int, exceeded: Callable[[], None]) -> None:
    """Calls `exceeded` once, on a thread of its own, when the resident memory stays above the limit.

    Resident memory, since the address space that torch reserves says nothing.
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return
    limit = limit_mib * 1024 * 1024

    def above() -> bool:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > limit

    def watch() -> None:
        idle = threading.Event()
        while True:
            if above():
                gc.collect()
                if above():
                    exceeded()
                    return
            idle.wait(_WATCHED_EVERY_SECONDS)

    threading.Thread(target=watch, name="memory watch", daemon=True).start()
