"""Services that are started by hand, with no setting but their home, find each other."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from services.cli.launcher.ports import is_free
from services.contracts.addresses import LOOPBACK, PORTS
from services.kit.identity.auth import API_KEY_FILE, read_key
from tests.integration.services.test_alone import LIMIT_SECONDS, status
from tests.waiting import until

GATEWAY = f"http://{LOOPBACK}:{PORTS['gateway'].http}"


@contextmanager
def running(service: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    remaining = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "KAFKA_"))}
    with (home / f"{service}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{service}"],
            env={**remaining, "MILLRACE_HOME": str(home)},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    ports = [port for service in ("gateway", "registry") for port in (PORTS[service].http, PORTS[service].grpc)]
    if not all(map(is_free, ports)):
        pytest.skip("somebody listens on the default ports of the gateway or the registry")
    return tmp_path


def models(home: Path) -> object:
    """What the gateway hears from the registry; None while nobody answers."""
    key = read_key(home / "keys", API_KEY_FILE)
    request = urllib.request.Request(f"{GATEWAY}/api/v1/models", headers={"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.loads(response.read())["models"]
    except OSError:
        return None


def test_a_gateway_reaches_a_registry_though_neither_has_an_address_of_the_other(home: Path) -> None:
    with ExitStack() as processes:
        processes.enter_context(running("registry", home))
        until((home / "keys" / "service-key").exists, "the registry made the keys", LIMIT_SECONDS)
        gateway = processes.enter_context(running("gateway", home))
        until(lambda: status(f"{GATEWAY}/healthz") == 200, "the gateway answers", LIMIT_SECONDS)
        until(lambda: models(home) == [], "the registry answers through it", LIMIT_SECONDS)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(LIMIT_SECONDS) == 0, (home / "gateway.log").read_text()


def test_a_second_service_on_the_same_ports_says_so_in_one_line(home: Path) -> None:
    with running("registry", home) as first:
        until((home / "keys" / "service-key").exists, "the registry made the keys", LIMIT_SECONDS)
        address = f"http://{LOOPBACK}:{PORTS['registry'].http}"
        until(lambda: status(f"{address}/healthz") == 200, "the registry answers", LIMIT_SECONDS)
        with running("registry", home) as second:
            assert second.wait(LIMIT_SECONDS) == 2
        written = (home / "registry.log").read_text()
        assert "cannot be listened on" in written
        assert "Traceback" not in written
        assert first.poll() is None
