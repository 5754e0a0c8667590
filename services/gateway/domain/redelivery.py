"""Redelivery of dead letters without doubling effects (docs/decisions/0011-a-redelivered-letter-keeps-its-id.md).

A record is sent as it was: original bytes, key and headers, so that it has the id of the first delivery and every inbox
that had its effect ignores it. What cannot have the promised effect is skipped, with the reason.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from services.contracts.errors import BadField, MillraceError
from services.contracts.events import BY_TOPIC
from services.contracts.topics import DLQ_SUFFIX
from services.gateway.domain.dead_letters import (
    FIRST_GIVEN_UP_AT,
    MARKER,
    MARKER_ADDRESS,
    MARKER_AT,
    MARKER_EVENT,
    REDELIVERY_OF,
    DeadLetter,
)
from services.gateway.errors import RedeliveredAlready
from services.kit.core.retention import DEAD_LETTER_RETENTION
from services.kit.messaging.envelope import Envelope, Message, attributes_of, decode, encode

SOURCE: Final = "millrace/gateway"
MAX_WHY: Final = 500

NewestIds = Mapping[tuple[str, str], str]
"""Of compacted topics: the id of the newest event of each topic and key."""


@dataclass(frozen=True)
class Redelivery:
    """A letter, and either the record that is sent or why none is."""

    dead_letter: DeadLetter
    event_id: str
    """Of the record that is sent; of the letter where none is."""
    message: Message | None = None
    skipped: str = ""
    """A code for programs; empty where a record is sent."""
    why: str = ""

    @property
    def identity(self) -> bytes:
        """Equal for letters of one event, which several services may have given up."""
        if self.message is None:
            return self.dead_letter.address.encode()
        event = self.dead_letter.record.event_id or self.dead_letter.address
        parts = (event.encode(), self.message.topic.encode(), self.message.key or b"", self.message.value or b"")
        return hashlib.sha256(b"\n".join(hashlib.sha256(part).digest() for part in parts)).digest()

    def marker(self, actor: str, now: datetime) -> Message:
        """Recorded beside the letter after the record was sent."""
        tenant = self.dead_letter.record.tenant
        headers = {MARKER: actor, MARKER_ADDRESS: self.dead_letter.address, MARKER_EVENT: self.event_id}
        headers["dlq-tenant"] = tenant
        topic = self.dead_letter.topic + DLQ_SUFFIX
        return Message(topic, self.dead_letter.record.key, None, (*headers.items(), (MARKER_AT, now.isoformat())))


def skip_unread(dead_letter: DeadLetter, newest: NewestIds, now: datetime, *, again: bool) -> Redelivery | None:
    """The reason not to send the letter that its headers already give; None where its body has to be read."""
    if dead_letter.redelivered_at and not again:
        why = (
            f"it became {dead_letter.failed_again}"
            if dead_letter.failed_again
            else f"at {dead_letter.redelivered_at.isoformat()}"
        )
        return _skip(dead_letter, "redelivered_already", f"{why}; 'again' sends it once more")
    if dead_letter.truncated_from:
        size = dead_letter.truncated_from
        why = f"of {size} bytes only a part fitted the dead-letter topic; its producer has to send it"
        return _skip(dead_letter, "truncated", why)
    if now - dead_letter.first_given_up_at > DEAD_LETTER_RETENTION:
        days = DEAD_LETTER_RETENTION.days
        why = f"first given up more than {days} days ago: a service that handled it may have forgotten its id"
        return _skip(dead_letter, "too_old", why)
    event = BY_TOPIC[dead_letter.topic]
    if event.compacted and newest.get((dead_letter.topic, dead_letter.key)) != dead_letter.record.event_id:
        why = f"{event.owner} has published a newer event for {dead_letter.key}, and only the newest counts"
        return _skip(dead_letter, "superseded", why)
    return None


def _skip(dead_letter: DeadLetter, code: str, why: str) -> Redelivery:
    return Redelivery(dead_letter, dead_letter.record.event_id, skipped=code, why=why[:MAX_WHY])


def skip_gone(dead_letter: DeadLetter) -> Redelivery:
    return _skip(dead_letter, "gone", "its topic has dropped it meanwhile")


def redeliver(dead_letter: DeadLetter, body: bytes, now: datetime) -> Redelivery:
    """The original record. It is skipped where it cannot be read: it would become a dead letter again."""
    original = dead_letter.original(body)
    try:
        decode(original, now)
    except MillraceError as error:
        return _skip(dead_letter, "malformed", f"{error} A corrected body can be sent instead.")
    return Redelivery(dead_letter, dead_letter.record.event_id, _with_origin(original, dead_letter))


def redeliver_corrected(
    dead_letter: DeadLetter, body: bytes, corrected: bytes, now: datetime, *, again: bool
) -> Redelivery:
    """The letter with another body: an event of its own, caused by the first one.

    Its id is made of the first one and of the body, so that the same correction twice has one effect. Raises BadField
    for a body that is no event, or for an event of a compacted topic, of which only the owner's newest counts; and
    RedeliveredAlready for a letter that was redelivered as another event: two events have two effects.
    """
    if BY_TOPIC[dead_letter.topic].compacted:
        problem = f"events of {dead_letter.topic} are not corrected: {BY_TOPIC[dead_letter.topic].owner} publishes anew"
        raise BadField(name="corrected_body", problem=problem, field="corrected_body")
    original = dead_letter.original(body)
    cause = dead_letter.record.event_id or dead_letter.address
    digest = hashlib.sha256(f"{cause}\n".encode() + corrected).hexdigest()[:40]
    attributes = attributes_of(original)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"corrected-{digest}",
        "ce_source": SOURCE,
        "ce_tenant": dead_letter.record.tenant,
        "ce_causationid": cause,
        "ce_correlationid": attributes.get("correlationid", "") or cause,
        **{name: original.header(name) or attributes.get(name, "") for name in ("traceparent", "tracestate")},
    }
    sent = tuple((name, value) for name, value in headers.items() if value)
    try:
        envelope: Envelope[Any] = decode(replace(original, value=corrected, headers=sent), now)
    except MillraceError as error:
        raise BadField(name="corrected_body", problem=str(error), field="corrected_body") from error
    if dead_letter.redelivered_at and dead_letter.redelivered_as != envelope.id and not again:
        raise RedeliveredAlready(
            address=dead_letter.address, event=dead_letter.redelivered_as or dead_letter.failed_again
        )
    return Redelivery(dead_letter, envelope.id, _with_origin(encode(envelope), dead_letter))


def _with_origin(message: Message, dead_letter: DeadLetter) -> Message:
    origin = ((REDELIVERY_OF, dead_letter.address), (FIRST_GIVEN_UP_AT, dead_letter.first_given_up_at.isoformat()))
    return replace(message, headers=(*message.headers, *origin))
