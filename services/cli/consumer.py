"""Watching the topics as an outside consumer does: without a group, from now on, from a time or from the beginning."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from services.cli.brokers import NoBroker

CONNECT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class ReceivedEvent:
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
    stamp: datetime = field(repr=False, default=datetime.fromtimestamp(0, UTC))
    """When the record was written, whatever the event says of itself."""

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

    def __init__(
        self, bootstrap: str, topics: Sequence[str], *, from_beginning: bool, since: datetime | None = None
    ) -> None:
        """`since` begins at the first record that was written then or later. Raises NoBroker."""
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        quiet = {"bootstrap.servers": bootstrap, "group.id": "millrace-watcher", "log_level": 0}
        self._since = since
        self._consumer = Consumer({**quiet, "enable.auto.commit": False, "fetch.wait.max.ms": 100})
        try:
            known = self._consumer.list_topics(timeout=CONNECT_SECONDS).topics
            positions = [
                TopicPartition(name, number) for name in topics if name in known for number in known[name].partitions
            ]
            for position in positions:
                begin, end = self._consumer.get_watermark_offsets(position, timeout=CONNECT_SECONDS)
                # A fixed offset, not "the end": what comes between this line and the first fetch is seen too.
                position.offset = begin if from_beginning else end
                if since is not None:
                    position.offset = self._offset_at(position, since, begin, end)
        except KafkaException as error:
            self._consumer.close()
            raise NoBroker(bootstrap) from error
        self._consumer.assign(positions)

    def _offset_at(self, position: Any, since: datetime, begin: int, end: int) -> int:
        """The first offset at that time. A broker that keeps no index of times (the embedded one) is read whole."""
        from confluent_kafka import TopicPartition

        def first(milliseconds: int) -> int:
            time_query = TopicPartition(position.topic, position.partition, milliseconds)
            return int(self._consumer.offsets_for_times([time_query], timeout=CONNECT_SECONDS)[0].offset)

        offset = first(int(since.timestamp() * 1000))
        if offset >= 0:
            return offset
        return end if first(1) >= 0 else begin

    def poll(self, seconds: float) -> ReceivedEvent | None:
        """The next event, or None when none came within this time."""
        while True:
            message = self._consumer.poll(seconds)
            if message is None or message.error() is not None:
                return None
            seen = _seen(message)
            if self._since is None or seen.stamp >= self._since:
                return seen

    def close(self) -> None:
        self._consumer.close()


def _seen(message: Any) -> ReceivedEvent:
    import json

    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers() or ()}
    value = message.value() or b""
    try:
        body = json.loads(value)
    except (ValueError, RecursionError):  # anybody may send anything
        body = {}
    stamp = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    return ReceivedEvent(
        topic=message.topic(),
        key=(message.key() or b"").decode("utf-8", "replace"),
        time=_time(headers.get("ce_time"), stamp),
        source=headers.get("ce_source", "external"),
        headers=headers,
        body=body if isinstance(body, dict) else {"value": body},
        offset=message.offset(),
        partition=message.partition(),
        value=value,
        stamp=stamp,
    )


def _time(text: str | None, stamp: datetime) -> datetime:
    try:
        at = datetime.fromisoformat(text) if text else stamp
    except ValueError:
        return stamp
    return at if at.tzinfo else at.replace(tzinfo=UTC)
