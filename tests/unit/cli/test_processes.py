"""Children end when told, and never outlive their parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.launcher.ports import answers, any_free, is_free, next_free
from services.cli.launcher.processes import alive, spawn, stop
from tests.waiting import LIMIT_SECONDS, until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
SLEEPER = "import time; print('up', flush=True); time.sleep(60)"


def start(script: str, log: Path) -> "subprocess.Popen[bytes]":
    child = spawn([sys.executable, "-c", script], log=log, environment=os.environ)
    until(lambda: b"up" in log.read_bytes(), "the child says that it is up")
    return child


def test_a_child_that_obeys_gets_one_signal_only(tmp_path: Path) -> None:
    child = start(SLEEPER, tmp_path / "log")
    assert stop(child, limit_seconds=LIMIT_SECONDS)
    assert child.returncode == -signal.SIGTERM


def test_a_child_that_does_not_obey_is_killed_after_its_limit(tmp_path: Path) -> None:
    child = start(STUBBORN, tmp_path / "log")
    assert not stop(child, limit_seconds=0.2)
    assert child.returncode == -signal.SIGKILL


def test_what_a_child_left_in_its_group_ends_with_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        f"grandchild = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\n"
        "print(grandchild.pid, flush=True)\n"
        "grandchild.wait()\n"
    )
    child = spawn([sys.executable, "-c", script], log=tmp_path / "log", environment=os.environ)
    until(lambda: len((tmp_path / "log").read_text().split()) == 2, "both lines are there")
    grandchild = int(next(word for word in (tmp_path / "log").read_text().split() if word.isdigit()))
    stop(child, limit_seconds=LIMIT_SECONDS)
    until(lambda: not alive(grandchild), "the grandchild has ended")


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "from services.cli.launcher.processes import spawn\n"
        f"child = spawn([sys.executable, '-c', {SLEEPER!r}], log=log, environment=os.environ)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        until(lambda: b"up" in (tmp_path / "log").read_bytes(), "the child says that it is up")
        parent.kill()
    until(lambda: not alive(child), "the orphan has ended")


def test_a_taken_port_is_passed_over() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", any_free()))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert answers("127.0.0.1", port)
        assert next_free(port) > port
        assert next_free(port, taken={port + 1}) > port + 1


def test_nobody_is_alive_under_a_number_that_was_never_given() -> None:
    assert alive(os.getpid())
    assert not alive(2**22 + 1)
