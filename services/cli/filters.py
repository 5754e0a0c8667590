"""Which of the events that come are worth showing."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from services.cli.consumer import ReceivedEvent
from services.cli.errors import CliError, Exit

UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class EventFilter:
    """Events with this key whose fields have these values; what is left empty does not matter."""

    key: str = ""
    values: tuple[tuple[str, str], ...] = ()

    def __call__(self, event: ReceivedEvent) -> bool:
        if self.key and event.key != self.key:
            return False
        return all(value in set(values_of(event, field)) for field, value in self.values)


def event_filter(key: str, matches: Sequence[str]) -> EventFilter:
    """From `--key` and `--match FIELD=VALUE`. Raises CliError for one without an equals sign."""
    pairs = []
    for match in matches:
        field, sign, value = match.partition("=")
        if not sign or not field:
            message, hint = f"{match} is not FIELD=VALUE", "--match rollout.state=canary"
            raise CliError(message, hint=hint, code="not_a_match", status=Exit.USAGE)
        pairs.append((field, value))
    return EventFilter(key, tuple(pairs))


def values_of(event: ReceivedEvent, field: str) -> Iterator[str]:
    """What the event says there: `targets.version` tells of every target; headers go by their names (`ce_id`)."""
    if field in event.headers:
        yield event.headers[field]
    yield from _values(event.body, field.split("."))


def _values(value: Any, path: list[str]) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _values(one, path)
    elif not path:
        yield _text(value)
    elif isinstance(value, dict) and path[0] in value:
        yield from _values(value[path[0]], path[1:])


def _text(value: Any) -> str:
    """As JSON writes it, text without its quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def read_time(text: str, now: datetime) -> datetime:
    """`90s`, `10m`, `2h`, `1d` before now, or a time such as 2026-11-03T12:00:00+00:00. Raises CliError."""
    try:
        if matches := re.fullmatch(r"(\d{1,9})([smhd])", text):
            return now - timedelta(**{UNITS[matches[2]]: int(matches[1])})
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        message, hint = f"{text} is neither a time nor a while", "10m, 2h, 1d, or 2026-11-03T12:00:00+00:00"
        raise CliError(message, hint=hint, code="not_a_time", status=Exit.USAGE) from error
    return at if at.tzinfo else at.astimezone()
