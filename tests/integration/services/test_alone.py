"""The light services run, not only import, where torch and every other room's packages are absent."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from services.cli.launcher.ports import any_free
from tests.laws.absence import foreign, without

LIMIT_SECONDS: Final = 100.0

RUN: Final = """
import runpy

runpy.run_module("services.{service}", run_name="__main__")
"""


@contextmanager
def running(service: str, home: Path, bootstrap: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A room as a process of its own, with what is not its own made unimportable; its HTTP address."""
    port = any_free()
    environment = {
        **os.environ,
        "MILLRACE_HOME": str(home),
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        f"MILLRACE_{service.upper()}_HTTP_PORT": str(port),
        f"MILLRACE_{service.upper()}_GRPC_PORT": "0",
    }
    program = without(foreign(service), RUN.format(service=service))
    with (home / f"{service}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def status(url: str) -> int:
    """The HTTP status; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def wait_for(url: str, expected: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while (match := status(url)) != expected:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"{url} answers {match}\n{log.read_text()}"
        time.sleep(0.1)


@pytest.mark.parametrize("service", ["gateway", "registry", "monitor"])
def test_a_light_service_becomes_ready_and_stops_without_torch(
    service: str, tmp_path: Path, embedded_bootstrap: str
) -> None:
    assert {"torch", "transformers"} <= foreign(service)
    log = tmp_path / f"{service}.log"
    with running(service, tmp_path, embedded_bootstrap) as (url, process):
        wait_for(f"{url}/healthz", 200, process, log)
        wait_for(f"{url}/readyz", 200, process, log)
        assert status(f"{url}/metrics") == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0, log.read_text()
