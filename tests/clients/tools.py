"""The clients' own environment and programs, made once; left out by name and reason where they cannot be had."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fixtures.presence import left_out

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ROOT / "requirements-clients.lock"
FOLDER: Final = ROOT / ".cache/clients"
GRPCURL: Final = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"
FETCH_SECONDS: Final = 600.0
FETCH_TRIES: Final = 3


def python() -> Path:
    """An interpreter with every client of the lock file, and nothing of Millrace."""
    made = FOLDER / f"python-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    interpreter = made / "bin/python"
    if (made / "complete").exists():
        return interpreter
    uv = Path(sys.executable).with_name("uv")
    shutil.rmtree(made, ignore_errors=True)
    environment = os.environ | {"VIRTUAL_ENV": str(made)}
    try:
        _run([str(uv), "venv", "--quiet", "--python", sys.executable, str(made)], environment)
        _run([str(uv), "pip", "sync", "--quiet", "--require-hashes", str(LOCK)], environment)
    except subprocess.SubprocessError as error:
        left_out("clients", f"their packages could not be installed ({error})")
    (made / "complete").touch()
    return interpreter


def grpcurl() -> str:
    """From the PATH, or built by Go."""
    if path := shutil.which("grpcurl"):
        return path
    program = FOLDER / "grpcurl"
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            left_out("grpcurl", "neither it nor Go, which would build it, is on the PATH")
        FOLDER.mkdir(parents=True, exist_ok=True)
        try:
            _run([go, "install", GRPCURL], os.environ | {"GOBIN": str(FOLDER)})
        except subprocess.SubprocessError as error:
            left_out("grpcurl", f"Go could not build it ({error})")
    return str(program)


def _run(command: list[str], environment: dict[str, str]) -> None:
    """Tries again where it may have been the network's fault. Raises SubprocessError."""
    for tried in range(1, FETCH_TRIES + 1):
        try:
            subprocess.run(command, check=True, env=environment, timeout=FETCH_SECONDS, stdout=subprocess.DEVNULL)
            return
        except subprocess.CalledProcessError:
            if tried == FETCH_TRIES:
                raise
