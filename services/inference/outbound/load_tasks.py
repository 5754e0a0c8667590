"""The owner of the tasks that bring versions up and down."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from services.inference.domain.versions import VersionKey
from services.kit.core.log import logger


class OwnedLoadTasks:
    """One task a version at a time; none outlives `close`."""

    def __init__(self) -> None:
        self._tasks: dict[VersionKey, asyncio.Task[None]] = {}
        self._load_slot = asyncio.Lock()

    def start(self, key: VersionKey, work: Coroutine[Any, Any, None]) -> None:
        """Replaces what was going on for this version."""
        before = self._tasks.get(key)
        if before is not None:
            before.cancel()
        task = asyncio.create_task(work, name=f"{key.deployment}/{key.version}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))

    async def stop(self, key: VersionKey) -> None:
        """Returns once nothing goes on for this version any more."""
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def load_slot(self) -> AsyncIterator[None]:
        """Held while bringing a version up, so that only one takes memory and cores from serving."""
        async with self._load_slot:
            yield

    async def close(self) -> None:
        for key in list(self._tasks):
            await self.stop(key)

    def _ended(self, key: VersionKey, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled() and task.exception() is not None:
            logger.error("work on %s broke", task.get_name(), exc_info=task.exception())
