"""Sending dead letters again without doubling effects (docs/decisions/0011-a-replayed-letter-keeps-its-id.md).

What is sent is the record as it was: original bytes, key and headers, so that it has the id of the first delivery and
every inbox that had its effect already knows it. What cannot have the promised effect is left out, with the reason.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from services.cli.errors import CliError
from services.cli.letters import (
    FIRST_BURIED_AT,
    NOTE,
    NOTE_AT,
    NOTE_EVENT,
    NOTE_LETTER,
    REPLAY_OF,
    REPLAYED,
    DeadLetter,
)
from services.cli.sending import Sender
from services.cli.watching import ReceivedEvent, Watcher

if TYPE_CHECKING:
    from services.kit.messaging.envelope import Envelope, Message

SOURCE: Final = "millrace/cli"

Latest = Mapping[tuple[str, str], str]
"""Of compacted topics: the id of the newest event of each topic and key."""


@dataclass(frozen=True)
class Planned:
    """A letter, and either the record that is sent or why none is."""

    letter: DeadLetter
    message: "Message | None" = None
    skipped: str = ""
    """A code for programs; empty where a record is sent."""
    why: str = ""

    @property
    def event_id(self) -> str:
        """Of the record that is sent; of the letter where none is."""
        from services.kit.messaging.envelope import id_of

        return id_of(self.message) if self.message is not None else self.letter.event_id

    def document(self) -> dict[str, Any]:
        return {
            "letter": self.letter.name,
            "event_id": self.event_id,
            "key": self.letter.seen.key,
            "skipped": self.skipped or None,
            "why": self.why,
        }


def plan(letters: Iterable[DeadLetter], *, again: bool, now: datetime, latest: Latest) -> list[Planned]:
    """What a replay of these letters does, in their order."""
    return [_planned(letter, again=again, now=now, latest=latest) for letter in letters]


def _planned(letter: DeadLetter, *, again: bool, now: datetime, latest: Latest) -> Planned:
    from services.contracts.errors import Refusal
    from services.kit.core.retention import DEAD_LETTER_RETENTION
    from services.kit.messaging.envelope import decode

    if letter.replayed_at and not again:
        why = f"it became {letter.failed_again}" if letter.failed_again else f"at {letter.replayed_at.isoformat()}"
        return Planned(letter, skipped="replayed_already", why=f"{why}; --again sends it once more")
    if letter.cut_from:
        why = f"{letter.cut_from} bytes were cut to fit the dead-letter topic; have its producer send it again"
        return Planned(letter, skipped="cut", why=why)
    if now - letter.first_buried_at > DEAD_LETTER_RETENTION:
        why = (
            f"first given up more than {DEAD_LETTER_RETENTION.days} days ago: who handled it may have forgotten its id"
        )
        return Planned(letter, skipped="too_old", why=why)
    original = letter.original()
    try:
        envelope = decode(original, now)
    except Refusal as refusal:
        return Planned(letter, skipped="malformed", why=f"{refusal} Correct it with --edit or --body FILE")
    if envelope.event.compacted and latest.get((letter.topic, letter.seen.key)) != letter.event_id:
        why = f"{envelope.event.owner} has told of {letter.seen.key} since, and only the newest counts"
        return Planned(letter, skipped="superseded", why=why)
    return Planned(letter, _marked(original, letter))


def corrected(letter: DeadLetter, body: bytes, now: datetime, *, again: bool = False) -> Planned:
    """The letter with another body: an event of its own, caused by the first one.

    Its id is made of the first one and of the body, so that the same correction twice has one effect. Raises CliError,
    also for one that was replayed as another event: two events have two effects.
    """
    from services.contracts.errors import Refusal
    from services.kit.messaging.envelope import attributes_of, decode, encode

    original = letter.original()
    cause = letter.event_id or letter.name
    digest = hashlib.sha256(f"{cause}\n".encode() + body).hexdigest()[:40]
    attributes = attributes_of(original)
    told = {
        "ce_specversion": "1.0",
        "ce_id": f"corrected-{digest}",
        "ce_source": SOURCE,
        "ce_tenant": attributes.get("tenant", ""),
        "ce_causationid": cause,
        "ce_correlationid": attributes.get("correlationid", "") or cause,
        **{name: original.header(name) or attributes.get(name, "") for name in ("traceparent", "tracestate")},
    }
    headers = tuple((name, value) for name, value in told.items() if value)
    try:
        envelope: Envelope[Any] = decode(replace(original, value=body, headers=headers), now)
    except Refusal as refusal:
        message = f"the corrected body is no event: {refusal}"
        raise CliError(message, hint=f"millrace events schema {letter.topic}", code=refusal.code) from refusal
    if letter.replayed_at and letter.replayed_as != envelope.id and not again:
        message = f"{letter.name} was replayed already, as {letter.replayed_as or letter.failed_again}"
        raise CliError(message, hint="--again sends this correction too", code="replayed_already")
    return Planned(letter, _marked(encode(envelope), letter))


def content(letter: DeadLetter) -> bytes:
    """What there is to correct: the event alone, where it came wrapped in a structured CloudEvent."""
    import json

    body = letter.seen.body
    if "specversion" in body and "data" in body:
        return json.dumps(body["data"], indent=2).encode()
    return letter.seen.value


def carry_out(planned: Sequence[Planned], send: Sender, now: datetime) -> int:
    """Sends what is planned, then notes it beside each letter; how many records were sent.

    Letters of one event, given up by several services, are one record. A note follows the record: after a crash in
    between the letter seems unsent, and sending it again has no second effect. Raises CliError.
    """
    distinct: dict[tuple[object, ...], Message] = {}
    notes: list[Message] = []
    for one in planned:
        if one.message is None:
            continue
        message = one.message
        identity = (one.letter.event_id or one.letter.name, message.topic, message.key, message.value)
        distinct.setdefault(identity, message)
        notes.append(_note(one, now))
    send(list(distinct.values()))
    send(notes)
    return len(distinct)


def latest_of(bootstrap: str, letters: Iterable[DeadLetter]) -> Latest:
    """Of the compacted topics among the letters' the newest event of each key. Raises NoBroker."""
    from services.contracts.events import BY_TOPIC

    topics = sorted({letter.topic for letter in letters if BY_TOPIC[letter.topic].compacted})
    if not topics:
        return {}
    watcher = Watcher(bootstrap, topics, from_beginning=True)
    try:
        return {(seen.topic, seen.key): _id_of(seen) for seen in watcher.until_end()}
    finally:
        watcher.close()


def _id_of(seen: ReceivedEvent) -> str:
    from services.kit.messaging.envelope import Message, id_of

    return id_of(Message(seen.topic, seen.record_key, seen.value, tuple(seen.headers.items())))


def _marked(message: "Message", letter: DeadLetter) -> "Message":
    origin = ((REPLAY_OF, letter.name), (FIRST_BURIED_AT, letter.first_buried_at.isoformat()))
    return replace(message, headers=(*message.headers, *origin))


def _note(one: Planned, now: datetime) -> "Message":
    from services.kit.messaging.envelope import Message

    told = {NOTE: REPLAYED, NOTE_LETTER: one.letter.name, NOTE_EVENT: one.event_id, NOTE_AT: now.isoformat()}
    return Message(one.letter.seen.topic, one.letter.seen.record_key, None, tuple(told.items()))
