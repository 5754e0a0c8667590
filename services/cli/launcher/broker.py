"""What the two brokers share: the news that one is ready, and waiting to be told to stop."""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class BrokerReady:
    """A broker answers at `bootstrap`; the process `pid` is told to stop it."""

    kind: str
    bootstrap: str
    pid: int


def write_ready(path: Path, ready: BrokerReady) -> None:
    """Atomically, so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(asdict(ready)) + "\n", encoding="utf-8")
    draft.replace(path)


def read_ready(path: Path) -> BrokerReady | None:
    """None while the broker is not ready."""
    try:
        return BrokerReady(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def hold_signals(*also: signal.Signals) -> None:
    """Keeps the stop signals (and `also`) for `told_to_stop`. Call before any thread starts: it inherits this."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, *also})


def stop_requested(*also: signal.Signals) -> bool:
    """Waits for a held signal: True for SIGTERM and SIGINT, False for one of `also`. Says who sent it, where it can."""
    watched = {*STOP_SIGNALS, *also}
    if sys.platform != "linux":
        return signal.sigwait(watched) in STOP_SIGNALS
    came = signal.sigwaitinfo(watched)
    stop = came.si_signo in STOP_SIGNALS
    if stop:
        print(f"told to stop with signal {came.si_signo} by process {came.si_pid}", flush=True)
    return stop
