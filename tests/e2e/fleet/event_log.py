"""Everything that is told on the topics, read as an outside consumer reads it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from services.cli.consumer import ReceivedEvent, Watcher
from services.cli.launcher.topics import load_topics
from services.contracts.topics import DLQ_SUFFIX

POLL_SECONDS: Final = 0.1

Matches = Callable[[ReceivedEvent], bool]


class EventLog:
    """Events in the order they were read, from the beginning of every topic on; safe to ask from any thread."""

    def __init__(self, bootstrap: str) -> None:
        self._watcher = Watcher(bootstrap, [topic.name for topic in load_topics()], from_beginning=True)
        self._events: list[ReceivedEvent] = []
        self._more = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read, name="event log")
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._watcher.close()

    def all(self, topic: str = "") -> list[ReceivedEvent]:
        """Of one topic, or of every one; a message that was sent twice stands here twice."""
        with self._more:
            return [event for event in self._events if not topic or event.topic == topic]

    def distinct(self, topic: str) -> list[ReceivedEvent]:
        """Each event once, however often it was sent, in the order of their first sight."""
        return list(
            {event.headers.get("ce_id", str(event.offset)): event for event in reversed(self.all(topic))}.values()
        )[::-1]

    def dead_letters(self) -> list[ReceivedEvent]:
        return [event for event in self.all() if event.topic.endswith(DLQ_SUFFIX)]

    def facts(self, kind: str = "") -> list[dict[str, Any]]:
        """Payloads of the registry's history, each fact once, in order."""
        outcome = {event.body["sequence"]: event.body for event in self.all("registry.history")}
        return [body["payload"] for _, body in sorted(outcome.items()) if kind in ("", body["kind"])]

    def wait(self, matches: Matches, what: str, limit_seconds: float) -> ReceivedEvent:
        """The first event that matches, told already or still to come. Fails the test, naming `what`."""
        deadline = time.monotonic() + limit_seconds
        looked = 0
        with self._more:
            while True:
                for event in self._events[looked:]:
                    if matches(event):
                        return event
                looked = len(self._events)
                left = deadline - time.monotonic()
                assert left > 0, f"not told within {limit_seconds:g} s: {what}"
                self._more.wait(left)

    def _read(self) -> None:
        while not self._stopping.is_set():
            event = self._watcher.poll(POLL_SECONDS)
            if event is not None:
                with self._more:
                    self._events.append(event)
                    self._more.notify_all()


@contextmanager
def listening(bootstrap: str) -> Iterator[EventLog]:
    log = EventLog(bootstrap)
    try:
        yield log
    finally:
        log.close()
