"""The house's clock: virtual, and it tells when the next sleeper is due."""

import asyncio

from services.kit.core.clock import VirtualClock


class PlatformClock(VirtualClock):
    """Time passes when the driver says so, and when the driver itself has to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.driver: asyncio.Task[object] | None = None

    async def sleep(self, seconds: float) -> None:
        """Who drives the house would wait for himself: for him time passes at once."""
        if asyncio.current_task() is self.driver:
            await self.advance(max(0.0, seconds))
        else:
            await super().sleep(seconds)

    def seconds_to_next_sleeper(self) -> float | None:
        waiting = [due for due, _, woken in self._sleepers if not woken.done()]
        return min(waiting) - self._elapsed if waiting else None
