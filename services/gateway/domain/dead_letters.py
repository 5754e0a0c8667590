"""Dead letters: what was given up, by whom and why, and whether it was redelivered since.

A redelivery is recorded by a marker beside the letter: a record without a body on the same dead-letter topic, which
names the letter. The redelivered record names the letter too, so that one that fails again refers to its origin.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from services.contracts.events import BY_TOPIC
from services.contracts.topics import DLQ_SUFFIX
from services.gateway.errors import UnknownDeadLetter, UnknownTopic
from services.kit.messaging.envelope import Message, id_of, tenant_or_default

REASON_PREFIX: Final = "dlq-"
"""Headers with this beginning are the dead letter's own and are never sent again."""
REDELIVERY_OF: Final = "redelivery-of"
FIRST_GIVEN_UP_AT: Final = "redelivery-first-at"
MARKER: Final = "dlq-redelivered"
MARKER_ADDRESS: Final = "dlq-letter"
MARKER_EVENT: Final = "dlq-redelivered-as"
MARKER_AT: Final = "dlq-at"

WAITING: Final = "waiting"
REDELIVERED: Final = "redelivered"
FAILED_AGAIN: Final = "failed_again"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a dead letter lies; its address is TOPIC/PARTITION/OFFSET, with the topic that the event was on."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def read_position(address: str) -> Position:
    """Raises UnknownDeadLetter for what is no address of one, UnknownTopic for a topic that is none of ours."""
    parts = address.split("/")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts[1:]):
        raise UnknownDeadLetter(address=address[:200])
    return Position(check_topic(parts[0]), int(parts[1]), int(parts[2]))


def check_topic(name: str) -> str:
    """The topic of events, also of its dead letters' topic. Raises UnknownTopic."""
    topic = name.removesuffix(DLQ_SUFFIX)
    if topic not in BY_TOPIC:
        raise UnknownTopic(topic=name[:200], topics=", ".join(BY_TOPIC))
    return topic


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """A record of a dead-letter topic, without its body."""

    position: Position
    key: bytes | None
    headers: Mapping[str, str]
    size_bytes: int
    event_id: str
    """The id by which inboxes know the event; empty where it has no valid one."""
    tenant: str
    written_at: datetime


def read_record(message: Message, partition: int, offset: int, written_at: datetime) -> DeadRecord:
    """From a message of a dead-letter topic. One that was truncated has lost its own headers."""
    topic = message.topic.removesuffix(DLQ_SUFFIX)
    original = replace(message, topic=topic)
    return DeadRecord(
        Position(topic, partition, offset),
        message.key,
        dict(message.headers),
        len(message.value or b""),
        id_of(original),
        message.header("dlq-tenant") or tenant_or_default(original),
        written_at,
    )


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter, and what became of it."""

    record: DeadRecord
    redelivered_at: datetime | None = None
    redelivered_as: str = ""
    """The id of the redelivered event: another one where its body was corrected."""
    failed_again: str = ""
    """The letter that the latest redelivery became."""

    @property
    def address(self) -> str:
        return str(self.record.position)

    @property
    def topic(self) -> str:
        return self.record.position.topic

    @property
    def order(self) -> tuple[str, str]:
        """In which letters are listed: by time, then by address."""
        return self.given_up_at.isoformat(), self.address

    @property
    def key(self) -> str:
        return (self.record.key or b"").decode("utf-8", "replace")

    @property
    def given_up_at(self) -> datetime:
        return _read_time(self.header("dlq-at"), self.record.written_at)

    @property
    def first_given_up_at(self) -> datetime:
        """When the event was first given up, redeliveries before this one included."""
        return _read_time(self.header(FIRST_GIVEN_UP_AT), self.given_up_at)

    @property
    def code(self) -> str:
        return self.header("dlq-code")

    @property
    def tries(self) -> int:
        tries = self.header("dlq-tries")
        return int(tries) if tries.isascii() and tries.isdecimal() and len(tries) < 10 else 0

    @property
    def truncated_from(self) -> int:
        """The size that the event had before it was truncated; 0 when it is complete."""
        size = self.header("dlq-cut") or "0"
        return int(size) if size.isascii() and size.isdecimal() and len(size) < 10 else 1

    @property
    def status(self) -> str:
        if self.failed_again:
            return FAILED_AGAIN
        return REDELIVERED if self.redelivered_at else WAITING

    @property
    def trace_id(self) -> str:
        parts = self.header("traceparent").split("-")
        return parts[1] if len(parts) == 4 else ""

    def header(self, name: str) -> str:
        return self.record.headers.get(name, "")

    def original(self, body: bytes) -> Message:
        """The record as it was on its topic: original bytes, key and headers."""
        own = (REDELIVERY_OF, FIRST_GIVEN_UP_AT)
        headers = tuple(
            (name, value)
            for name, value in self.record.headers.items()
            if not name.startswith(REASON_PREFIX) and name not in own
        )
        return Message(self.topic, self.record.key, body, headers)


def read_dead_letters(records: Iterable[DeadRecord]) -> list[DeadLetter]:
    """The letters among the records of dead-letter topics, the oldest first, each with what became of it.

    A marker, and a letter that names its origin, count for letters of their own tenant alone.
    """
    all_records = list(records)
    unmarked = [DeadLetter(record) for record in all_records if MARKER not in record.headers]
    by_address = {(one.record.tenant, one.address): one for one in unmarked}
    for record in all_records:
        if MARKER not in record.headers:
            continue
        owned = (record.tenant, record.headers.get(MARKER_ADDRESS, ""))
        if owned in by_address:
            at = _read_time(record.headers.get(MARKER_AT, ""), record.written_at)
            event = record.headers.get(MARKER_EVENT, "")
            by_address[owned] = replace(by_address[owned], redelivered_at=at, redelivered_as=event)
    for one in unmarked:
        owned = (one.record.tenant, one.header(REDELIVERY_OF))
        if (origin := by_address.get(owned)) is not None:  # its marker may be lost; the redelivery is not
            at = origin.redelivered_at or one.given_up_at
            by_address[owned] = replace(origin, failed_again=one.address, redelivered_at=at)
    return sorted(by_address.values(), key=lambda one: one.order)


@dataclass(frozen=True)
class DeadLetterFilter:
    """Which letters of a tenant; an empty field selects all."""

    topic: str = ""
    code: str = ""
    since: datetime | None = None
    waiting: bool = False

    def topics(self) -> list[str]:
        """Raises UnknownTopic."""
        return [check_topic(self.topic)] if self.topic else list(BY_TOPIC)

    def selects(self, dead_letter: DeadLetter) -> bool:
        return (
            self.code in ("", dead_letter.code)
            and not (self.waiting and dead_letter.redelivered_at)
            and (self.since is None or dead_letter.given_up_at >= self.since)
        )


def _read_time(text: str, otherwise: datetime) -> datetime:
    try:
        time = datetime.fromisoformat(text) if text else otherwise
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return otherwise
