"""What the audience sees: sections, one line for each event, and where it stands right now.

On a terminal a line at the bottom moves; anywhere else every line is plain, and progress is a line now and then.
"""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from services.cli.consumer import ReceivedEvent
from services.cli.descriptions import in_words, version_of
from services.kit.core.clock import Clock

PLAIN_PROGRESS_SECONDS: Final = 10.0
COLOURS: Final = {
    "dataset.ready": "cyan",
    "model.trained": "green",
    "training.failed": "red",
    "deployment.changed": "magenta",
    "drift.detected": "yellow",
    "rollout.judged": "yellow",
    "slo.breached": "red",
    "registry.history": "bright_black",
    "replica.reported": "blue",
}


class View(Protocol):
    """Only shows; the scenario goes on without it."""

    def section(self, number: int, title: str) -> None: ...

    def event(self, event: ReceivedEvent) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def block(self, lines: Sequence[str]) -> None: ...

    def close(self) -> None: ...


def columns(event: ReceivedEvent) -> tuple[str, str, str, str, str]:
    """Time, event, service, version, words."""
    version = version_of(event)
    return (
        clock_time(event.time),
        event.topic,
        event.source.removeprefix("millrace/").removeprefix("millrace-"),
        f"v{version}" if version is not None else "",
        in_words(event),
    )


def clock_time(timestamp: datetime) -> str:
    return f"{timestamp.astimezone():%H:%M:%S.%f}"[:-3]


class PlainView:
    """Lines on standard error, for logs and pipes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until = 0.0

    def section(self, number: int, title: str) -> None:
        self._print(f"\n== {number}. {title}")

    def event(self, event: ReceivedEvent) -> None:
        time, topic, service, version, words = columns(event)
        self._print(f"{time}  {topic:<18}  {service:<9}  {version:<3}  {words}")

    def warn(self, text: str) -> None:
        self._print(f"{'':12}  {text}")

    def progress(self, text: str) -> None:
        if self._clock.monotonic() >= self._silent_until:
            self._silent_until = self._clock.monotonic() + PLAIN_PROGRESS_SECONDS
            self._print(f"{'':12}  … {text}")

    def block(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._print(line)

    def close(self) -> None:
        """Nothing is held."""

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class LiveView:
    """Lines that scroll, and below them one that moves."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = console
        self._spinner = Spinner("dots", text="")
        self._live = Live(self._spinner, console=console, refresh_per_second=8, transient=True)
        self._live.start()

    def section(self, number: int, title: str) -> None:
        from rich.rule import Rule

        self._console.print()
        self._console.print(Rule(f"[bold]{number}. {title}[/bold]", align="left", style="bright_black"))

    def event(self, event: ReceivedEvent) -> None:
        from rich.text import Text

        time, topic, service, version, words = columns(event)
        line = Text(overflow="ellipsis", no_wrap=True)
        line.append(f"{time}  ", style="bright_black")
        line.append(f"{topic:<18}  ", style=COLOURS.get(topic, "white"))
        line.append(f"{service:<9}  ", style="bold")
        line.append(f"{version:<3}  ", style="bold")
        line.append(words)
        self._console.print(line)

    def warn(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(f"{'':14}{text}", style="bold"))

    def progress(self, text: str) -> None:
        from rich.text import Text

        self._spinner.update(text=Text(text, overflow="ellipsis", no_wrap=True))

    def block(self, lines: Sequence[str]) -> None:
        from rich.text import Text

        for line in lines:
            self._console.print(Text(line, overflow="crop", no_wrap=True))

    def close(self) -> None:
        self._live.stop()


def view_for(clock: Clock) -> View:
    """Live on a terminal, plain elsewhere; both on standard error, so that `--json` keeps standard output."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(clock)


class Filter:
    """Lets through what is news: every request and label is counted elsewhere, and a heartbeat says nothing new."""

    def __init__(self) -> None:
        self._replicas: dict[str, str] = {}

    def is_change(self, event: ReceivedEvent) -> bool:
        if event.topic in {"inference.logged", "feedback.received"}:
            return False
        if event.topic == "replica.reported":
            words = in_words(event)
            known = self._replicas.get(event.key)
            self._replicas[event.key] = words
            return words != known
        return True
