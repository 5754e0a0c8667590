"""The retry policy of every consumer: what is tried again, how often, and what is given up.

- An error that says a needed part is away (`Unavailable`, `Overloaded`, `TimedOut`) is waited out, however long.
- A refusal of the event itself is final at once: trying again cannot help.
- Anything else is tried five times.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.contracts.errors import MillraceError
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.messaging.envelope import Undecodable

TRIES: Final = 5
PAUSES_SECONDS: Final = (0.1, 0.3, 0.9, 2.0)
UNAVAILABLE_PAUSE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Failure:
    """Why the policy gave up, and after how many tries."""

    error: Exception
    tries: int


class RetryPolicy:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def run(self, topic: str, work: Callable[[], Awaitable[object]]) -> Failure | None:
        """Runs the work until it succeeds or is given up; then the failure, which is the caller's to dead-letter."""
        tries = 0
        while True:
            try:
                await work()
                return None
            except MillraceError as error:
                if isinstance(error, Undecodable):
                    return Failure(error, tries)  # it was never handled
                if not error.retryable:
                    return Failure(error, tries + 1)
                logger.warning("%s waits: %s", topic, error)
                await self._clock.sleep(UNAVAILABLE_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends as a dead letter
                tries += 1
                if tries == TRIES:
                    return Failure(error, tries)
                logger.warning("%s is tried again after %s: %s", topic, type(error).__name__, error)
                await self._clock.sleep(PAUSES_SECONDS[tries - 1])
