"""Durable timers: rows with a due time, handled once each; a restart forgets none."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

from services.contracts.errors import MillraceError
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.persistence.unit_of_work import Timer

POLL_SECONDS: Final = 0.5
BATCH: Final = 50

Handle = Callable[[Timer], Awaitable[None]]


class DueTimers(Protocol):
    async def due_timers(self, now: datetime, limit: int) -> list[Timer]:
        """The timers due by now, the earliest first."""
        ...


class TimerLoop:
    """Hands each due timer to the handler of its kind, which takes it in the transaction that acts on it."""

    def __init__(self, store: DueTimers, handlers: Mapping[str, Handle], clock: Clock) -> None:
        self._store = store
        self._handlers = handlers
        self._clock = clock

    async def run(self) -> None:
        while True:
            try:
                await self.run_due()
            except MillraceError as error:
                logger.warning("the timers wait: %s", error)
            await self._clock.sleep(POLL_SECONDS)

    async def run_due(self) -> int:
        """Handles what is due now; how many timers that was."""
        now = self._clock.now()
        due = await self._store.due_timers(now, BATCH)
        for timer in due:
            telemetry.TIMER_DELAY.record(max(0.0, (now - timer.due).total_seconds()), tenant=timer.tenant)
            with telemetry.span(
                f"timer {timer.kind}", parent=timer.trace, attributes={"millrace.timer.key": timer.key}
            ):
                try:
                    await self._handlers[timer.kind](timer)
                except MillraceError as error:
                    logger.warning("timer %s is tried again: %s", timer.key, error)
        return len(due)
