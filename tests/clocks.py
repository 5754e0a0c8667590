"""A clock for tests of what waits: time passes because somebody sleeps, never because the machine is slow."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class SkippingClock:
    """Keeps the promise of `kit.core.clock.Clock`: whoever sleeps is woken at the loop's next turn.

    Time is then later by what was slept. Sleepers side by side add up, so only a test with one of them may rely on
    exact times.
    """

    def __init__(self) -> None:
        self._elapsed = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        self._elapsed += max(0.0, seconds)
        await asyncio.sleep(0)
