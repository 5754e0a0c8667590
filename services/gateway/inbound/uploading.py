"""What REST and gRPC do with an upload: wait for its parts a bounded time, and report its progress at a pace."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from services.gateway.errors import SlowBody, StalledUpload
from services.kit.core.clock import Clock

REPORT_SECONDS: Final = 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class UploadTimeouts:
    """How long an upload may pause, and how long it may take."""

    chunk_seconds: float
    seconds: float

    async def part(self, coming: Awaitable[T]) -> T:
        """Raises StalledUpload when nothing comes in time."""
        try:
            async with asyncio.timeout(self.chunk_seconds):
                return await coming
        except TimeoutError as error:
            raise StalledUpload(seconds=self.chunk_seconds, field="body") from error

    @asynccontextmanager
    async def time_limit(self) -> AsyncIterator[None]:
        """Around the whole upload. Raises SlowBody."""
        try:
            async with asyncio.timeout(self.seconds):
                yield
        except TimeoutError as error:
            raise SlowBody(seconds=self.seconds, field="body") from error


class Pace:
    """Passes progress on twice a second, and not before half a second is over: short uploads need none."""

    def __init__(self, clock: Clock, report: Callable[[int], Awaitable[None]]) -> None:
        self._clock = clock
        self._report = report
        self._due = clock.monotonic() + REPORT_SECONDS

    async def report(self, received_bytes: int) -> None:
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + REPORT_SECONDS
            await self._report(received_bytes)
