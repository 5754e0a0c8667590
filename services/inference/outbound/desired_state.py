"""Two small files that let a replica come back as it was: the last known deployments, and the report's sequence."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from services.inference.domain.versions import DesiredDeployment
from services.kit.core.log import logger

_DEPLOYMENTS: Final = TypeAdapter(list[DesiredDeployment])
RESERVED_AT_ONCE: Final = 1000


class DesiredStateFile:
    """A JSON file, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> list[DesiredDeployment]:
        """What was saved last; nothing when there is none or it cannot be read: the registry's topic has it all."""
        try:
            return _DEPLOYMENTS.validate_json(await asyncio.to_thread(self._path.read_bytes))
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            logger.warning("the remembered deployments cannot be read: %s", type(error).__name__)
            return []

    async def save(self, deployments: Sequence[DesiredDeployment]) -> None:
        """Returns once it is on disk. A full disk is logged: serving goes on, and the registry's topic has it all."""
        content = _DEPLOYMENTS.dump_json(list(deployments))
        try:
            await asyncio.to_thread(replace_file, self._path, content)
        except OSError as error:
            logger.error("the deployments could not be remembered: %s", error)


def replace_file(path: Path, content: bytes) -> None:
    """After a crash the file is there whole, old or new. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class ReportSequence:
    """Numbers that grow over restarts, crashes and clock changes.

    A block is reserved on disk before its first number is given out. Without the file (a lost disk) it starts at
    the seconds since 1970, which is more than the reports a replica sends at less than one a second.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._path = path
        self._now = now
        self._next = 0
        self._reserved = 0

    async def take(self) -> int:
        if self._next >= self._reserved:
            await asyncio.to_thread(self._reserve)
        self._next += 1
        return self._next - 1

    def _reserve(self) -> None:
        if not self._next:
            self._next = self._stored() or int(self._now().timestamp())
        self._reserved = self._next + RESERVED_AT_ONCE
        replace_file(self._path, json.dumps({"reserved": self._reserved}).encode())

    def _stored(self) -> int:
        try:
            return int(json.loads(self._path.read_bytes())["reserved"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
