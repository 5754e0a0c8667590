"""Runs `checking` in its own process and turns what comes back, or does not, into a verdict."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import services
from services.contracts.artifact import Precision
from services.inference.errors import ArtifactRefused, CheckBroken
from services.kit.core.log import logger

ANSWER_BYTES: Final = 64 * 1024
_PASSED_ON: Final = ("PATH", "HOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT")


class Sandbox:
    """The checks of `services/inference/outbound/checking.py`, each run in a limited child process."""

    def __init__(self, *, rows: int, seconds: float) -> None:
        self._rows = rows
        self._seconds = seconds

    async def check(self, folder: Path, precision: Precision) -> None:
        """Raises ArtifactRefused with the first check that failed, and CheckBroken when the process could not run."""
        arguments = ("-m", "services.inference.outbound.checking", str(folder), precision.value, str(self._rows))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=ANSWER_BYTES,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._seconds):
                output, errors = await process.communicate()
        except TimeoutError as error:
            raise ArtifactRefused("too_slow", f"its checks did not end within {self._seconds:g} seconds") from error
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        _judge(process.returncode or 0, output, errors)


def _environment() -> dict[str, str]:
    """No secret of the service reaches a process that opens a stranger's file."""
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    root = str(Path(services.__file__).parents[1])
    return variables | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))}


def _judge(exit_code: int, output: bytes, errors: bytes) -> None:
    lines = output.decode("utf-8", "replace").splitlines()
    if exit_code == 0 and len(lines) == 2:
        answer = json.loads(lines[1])
        if not answer["ok"]:
            raise ArtifactRefused(answer["code"], answer["reason"])
        return
    logger.warning("the artifact check ended with %s: %s", exit_code, errors[-2000:].decode("utf-8", "replace"))
    if not lines:  # it never began: that says nothing of the artifact
        raise CheckBroken
    if b"MemoryError" in errors or b"bad_alloc" in errors:
        raise ArtifactRefused("too_much_memory", "it needs more memory than its size allows")
    raise ArtifactRefused("crashed", f"checking it ended with {exit_code}")
