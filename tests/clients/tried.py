"""Runs a client's script against a fleet and records its results, for the table."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.clients import tools
from tests.clients.tools import ROOT
from tests.fixtures.presence import left_out

SCRIPTS: Final = Path(__file__).parent / "scripts"
RESULTS: Final = ROOT / ".cache/tests/clients.json"
LIMIT_SECONDS: Final = 180.0
KAFKA: Final = ("producer_", "consumer_")
CANNOT: Final = 77
"""A script's exit code where the program that it tries is not on this machine; its stderr says which."""


@dataclass(frozen=True)
class Call:
    """One call of one client, and what came of it: `works`, or `refused: ...` where that is the promise."""

    client: str
    version: str
    call: str
    result: str


def scripts(*prefixes: str) -> list[str]:
    """Names of the scripts that begin so; without a prefix, of those that are for any fleet."""
    names = sorted(path.stem for path in SCRIPTS.glob("*.py"))
    if prefixes:
        return [name for name in names if name.startswith(prefixes)]
    return [name for name in names if not name.startswith((*KAFKA, "generation_"))]


def run(script: str, environment: Mapping[str, str], broker: str = "") -> list[Call]:
    """The calls that the script made; each met what it expected. `broker` is named beside the call where it matters."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "PYTHON", "OTEL_"))}
    done = subprocess.run(
        [str(tools.python()), str(SCRIPTS / f"{script}.py")],
        env=clean | dict(environment),
        cwd=SCRIPTS,
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    if done.returncode == CANNOT:
        left_out(script, done.stderr.strip())
    assert done.returncode == 0, f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    calls = [Call(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    assert calls, f"{script} made no call"
    if broker:
        calls = [Call(call.client, call.version, f"{call.call}, {broker}", call.result) for call in calls]
    _keep(script, calls)
    return calls


def recorded_calls() -> list[Call]:
    """Every recorded call, in the order of the clients' names."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    calls = [Call(**call) for recorded in results.values() for call in recorded]
    return sorted(calls, key=lambda call: call.client.lower())  # stable: a client's calls stay in their order


def _keep(script: str, calls: list[Call]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[f"{script}:{calls[0].call}"] = [asdict(call) for call in calls]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
