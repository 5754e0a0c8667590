"""Everything that is told on the topics while the demo runs, read as an outside consumer reads it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from demo.errors import NotInTime
from services.cli.consumer import ReceivedEvent, Watcher

POLL_SECONDS: Final = 0.2

Matches = Callable[[ReceivedEvent], bool]


class EventLog:
    """Events in the order they were read. `mark` and `wait` live on the event loop."""

    def __init__(self, event: Callable[[ReceivedEvent], None]) -> None:
        self.events: list[ReceivedEvent] = []
        self._events = event
        self._more = asyncio.Event()

    def add(self, event: ReceivedEvent) -> None:
        self.events.append(event)
        self._events(event)
        self._more.set()

    def mark(self) -> int:
        """Now, for `wait(since=...)`."""
        return len(self.events)

    def first(self, matches: Matches, since: int = 0) -> ReceivedEvent | None:
        return next((event for event in self.events[since:] if matches(event)), None)

    async def wait(self, matches: Matches, what: str, limit_seconds: float, since: int = 0) -> ReceivedEvent:
        """The first event that matches, come already or still to come. Raises NotInTime, naming `what`."""
        try:
            async with asyncio.timeout(limit_seconds):
                while (event := self.first(matches, since)) is None:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise NotInTime(what, limit_seconds) from None
        return event


class Recorder:
    """Feeds a log from the broker, on a thread of its own: the client library blocks."""

    def __init__(self, bootstrap: str, topics: list[str], log: EventLog) -> None:
        """Raises CliError when the broker does not answer. Everything told from now on is seen."""
        self._watcher = Watcher(bootstrap, topics, from_beginning=False)
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read, name="recorder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._watcher.close()

    def _read(self) -> None:
        while not self._stopping.is_set():
            event = self._watcher.poll(POLL_SECONDS)
            if event is not None:
                self._loop.call_soon_threadsafe(self._log.add, event)
