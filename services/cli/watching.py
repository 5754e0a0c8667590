"""Watching the topics as an outside consumer does: without a group, from now on or from the beginning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from services.cli.errors import CliError, Exit

CONNECT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Seen:
    """An event as it lay on its topic."""

    topic: str
    key: str
    time: datetime
    source: str
    headers: dict[str, str]
    body: dict[str, Any]
    offset: int
    partition: int
    value: bytes = field(repr=False, default=b"")

    @property
    def trace_id(self) -> str:
        """From the `traceparent` header; empty without one."""
        parts = self.headers.get("traceparent", "").split("-")
        return parts[1] if len(parts) == 4 else ""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "topic": self.topic,
            "key": self.key,
            "time": self.time.isoformat(),
            "id": self.headers.get("ce_id", ""),
            "source": self.source,
            "trace_id": self.trace_id,
            "correlation": self.headers.get("ce_correlationid", ""),
            "causation": self.headers.get("ce_causationid", ""),
            "event": self.body,
        }


class Watcher:
    """Reads topics from every partition, and commits nothing. `close` it."""

    def __init__(self, bootstrap: str, topics: Sequence[str], *, from_beginning: bool) -> None:
        """Raises CliError when the broker does not answer."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

        quiet = {"bootstrap.servers": bootstrap, "group.id": "millrace-watcher", "log_level": 0}
        self._consumer = Consumer({**quiet, "enable.auto.commit": False, "fetch.wait.max.ms": 100})
        try:
            known = self._consumer.list_topics(timeout=CONNECT_SECONDS).topics
            places = [
                TopicPartition(name, number) for name in topics if name in known for number in known[name].partitions
            ]
            for place in places:
                _, end = self._consumer.get_watermark_offsets(place, timeout=CONNECT_SECONDS)
                # A fixed offset, not "the end": what comes between this line and the first fetch is seen too.
                place.offset = OFFSET_BEGINNING if from_beginning else end
        except KafkaException as error:
            self._consumer.close()
            message = f"the broker at {bootstrap} does not answer"
            raise CliError(message, hint="millrace status", code="no_broker", status=Exit.NOT_RUNNING) from error
        self._consumer.assign(places)

    def poll(self, seconds: float) -> Seen | None:
        """The next event, or None when none came within this time."""
        message = self._consumer.poll(seconds)
        if message is None or message.error() is not None:
            return None
        return _seen(message)

    def until_quiet(self, seconds: float) -> Iterator[Seen]:
        """Events, until none comes for this long."""
        while (event := self.poll(seconds)) is not None:
            yield event

    def close(self) -> None:
        self._consumer.close()


def _seen(message: Any) -> Seen:
    import json

    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers() or ()}
    value = message.value() or b""
    try:
        body = json.loads(value)
    except ValueError:
        body = {}
    stamp = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    return Seen(
        topic=message.topic(),
        key=(message.key() or b"").decode("utf-8", "replace"),
        time=_time(headers.get("ce_time"), stamp),
        source=headers.get("ce_source", "external"),
        headers=headers,
        body=body if isinstance(body, dict) else {"value": body},
        offset=message.offset(),
        partition=message.partition(),
        value=value,
    )


def _time(text: str | None, stamp: datetime) -> datetime:
    try:
        told = datetime.fromisoformat(text) if text else stamp
    except ValueError:
        return stamp
    return told if told.tzinfo else told.replace(tzinfo=UTC)
