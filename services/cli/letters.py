"""Dead letters as a person sees them: what was given up, by whom, why, and whether it was sent again since.

That a letter was replayed is told by a note beside it: a record without a body on the same dead-letter topic, which
names the letter. The replayed record itself names the letter in `replay-of`, so that one that fails again remembers
where it came from.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from services.cli.errors import CliError, Exit
from services.cli.launcher.topics import DEAD_LETTER_SUFFIX
from services.cli.watching import ReceivedEvent, Watcher

if TYPE_CHECKING:
    from services.kit.messaging.envelope import Message

REASONS: Final = "dlq-"
"""Headers with this beginning are the dead letter's own and never travel back."""
REPLAY_OF: Final = "replay-of"
FIRST_BURIED_AT: Final = "replay-first-at"
NOTE: Final = "dlq-note"
NOTE_LETTER: Final = "dlq-letter"
NOTE_EVENT: Final = "dlq-replayed-as"
NOTE_AT: Final = "dlq-at"
REPLAYED: Final = "replayed"
MOST_BYTES: Final = 256 * 1024 * 1024
RECORD_BYTES: Final = 2_000


@dataclass(frozen=True)
class DeadLetter:
    """One record of a dead-letter topic, and what became of it."""

    seen: ReceivedEvent
    event_id: str
    """The id by which every inbox knows the event, made of the content where the producer gave none."""
    replayed_at: datetime | None = None
    replayed_as: str = ""
    """The id of the replayed event: another one where its body was corrected."""
    failed_again: str = ""
    """The letter that the latest replay became."""

    @property
    def name(self) -> str:
        """`topic/partition/offset`: where it lies, and how it is called on the command line."""
        return f"{self.topic}/{self.seen.partition}/{self.seen.offset}"

    @property
    def topic(self) -> str:
        return self.seen.topic.removesuffix(DEAD_LETTER_SUFFIX)

    @property
    def buried_at(self) -> datetime:
        return _time(self.seen.headers.get("dlq-at"), self.seen.stamp)

    @property
    def first_buried_at(self) -> datetime:
        """When the event was first given up, replays before this one included."""
        return _time(self.seen.headers.get(FIRST_BURIED_AT), self.buried_at)

    @property
    def code(self) -> str:
        return self.seen.headers.get("dlq-code", "")

    @property
    def cut_from(self) -> int:
        """The size it had before it was cut to fit; 0 when it is whole."""
        told = self.seen.headers.get("dlq-cut", "0")
        return int(told) if told.isdecimal() else 1

    @property
    def status(self) -> str:
        if self.failed_again:
            return "failed again"
        return REPLAYED if self.replayed_at else "waiting"

    def original(self) -> "Message":
        """The record as it lay on its topic: original bytes, key and headers."""
        from services.kit.messaging.envelope import Message

        own = (REPLAY_OF, FIRST_BURIED_AT)
        told = self.seen.headers.items()
        headers = tuple((name, value) for name, value in told if not name.startswith(REASONS) and name not in own)
        return Message(self.topic, self.seen.record_key, self.seen.value, headers)

    def document(self, now: datetime) -> dict[str, Any]:
        """For `--json`."""
        told = self.seen.headers
        return {
            "letter": self.name,
            "topic": self.topic,
            "status": self.status,
            "code": self.code,
            "reason": told.get("dlq-reason", ""),
            "tries": int(told["dlq-tries"]) if told.get("dlq-tries", "").isdecimal() else None,
            "by": told.get("dlq-by", ""),
            "key": self.seen.key,
            "event_id": self.event_id,
            "trace_id": self.seen.trace_id,
            "buried_at": self.buried_at.isoformat(),
            "age_seconds": round((now - self.buried_at).total_seconds(), 1),
            "bytes": len(self.seen.value),
            "cut_from": self.cut_from or None,
            "replay_of": told.get(REPLAY_OF, ""),
            "replayed_at": self.replayed_at.isoformat() if self.replayed_at else None,
            "replayed_as": self.replayed_as,
            "failed_again": self.failed_again,
        }


def known_letters(records: Iterable[ReceivedEvent]) -> list[DeadLetter]:
    """The letters among the records of dead-letter topics, the oldest first, each with what became of it."""
    kept = list(records)
    found = [DeadLetter(seen, _event_id(seen)) for seen in kept if NOTE not in seen.headers]
    letters = {letter.name: letter for letter in found}
    for note in kept:
        letter = letters.get(note.headers.get(NOTE_LETTER, ""))
        if letter is not None:
            at = _time(note.headers.get(NOTE_AT), note.stamp)
            letters[letter.name] = replace(letter, replayed_at=at, replayed_as=note.headers.get(NOTE_EVENT, ""))
    for letter in found:
        origin = letters.get(letter.seen.headers.get(REPLAY_OF, ""))
        if origin is not None:  # its note may have been lost, its replay was not
            at = origin.replayed_at or letter.buried_at
            letters[origin.name] = replace(origin, failed_again=letter.name, replayed_at=at)
    return sorted(letters.values(), key=lambda letter: letter.buried_at)


def read_letters(bootstrap: str, topics: Sequence[str], since: datetime | None = None) -> tuple[list[DeadLetter], int]:
    """Every dead letter of these topics up to now, and how many older records were passed over for want of memory.

    Raises NoBroker.
    """
    dead = [topic + DEAD_LETTER_SUFFIX for topic in topics]
    watcher = Watcher(bootstrap, dead, from_beginning=True, since=since)
    try:
        newest, passed_over = newest_of(watcher.until_end(), MOST_BYTES)
        return known_letters(newest), passed_over
    finally:
        watcher.close()


def newest_of(records: Iterable[ReceivedEvent], most_bytes: int) -> tuple[deque[ReceivedEvent], int]:
    """The last records that fit, and how many came before them."""
    kept: deque[ReceivedEvent] = deque()
    held = passed_over = 0
    for seen in records:
        kept.append(seen)
        held += _weight(seen)
        while held > most_bytes:
            held -= _weight(kept.popleft())
            passed_over += 1
    return kept, passed_over


def _weight(seen: ReceivedEvent) -> int:
    """A decoded body takes several times its bytes."""
    return RECORD_BYTES + 4 * len(seen.value)


def chosen_topics(named: str | None) -> list[str]:
    """The topic, or every one that has dead letters. Raises CliError for one that is none of ours."""
    from services.contracts.events import BY_TOPIC

    if not named:
        return list(BY_TOPIC)
    topic = named.removesuffix(DEAD_LETTER_SUFFIX)
    if topic not in BY_TOPIC:
        message, hint = f"there is no topic {topic}", f"one of {', '.join(BY_TOPIC)}"
        raise CliError(message, hint=hint, code="unknown_topic", status=Exit.USAGE)
    return [topic]


def topic_of(name: str) -> str:
    """The topic in a letter's name. Raises CliError for what is no name of a letter."""
    topic, _, place = name.partition("/")
    parts = place.split("/")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        hint = "a letter is called TOPIC/PARTITION/OFFSET, as 'millrace dlq list' shows it"
        raise CliError(f"{name} is not the name of a letter", hint=hint, code="not_a_letter", status=Exit.USAGE)
    return chosen_topics(topic)[0]


def named_letter(name: str, letters: Iterable[DeadLetter]) -> DeadLetter:
    """Raises CliError when it is not there."""
    wanted = f"{topic_of(name)}/{name.partition('/')[2]}"
    found = next((letter for letter in letters if letter.name == wanted), None)
    if found is None:
        message = f"there is no dead letter {name}"
        raise CliError(message, hint="millrace dlq list", code="unknown_letter", status=Exit.NOT_FOUND)
    return found


def _event_id(seen: ReceivedEvent) -> str:
    from services.kit.messaging.envelope import Message, id_of

    headers = tuple(seen.headers.items())
    return id_of(Message(seen.topic.removesuffix(DEAD_LETTER_SUFFIX), seen.record_key, seen.value, headers))


def _time(text: str | None, otherwise: datetime) -> datetime:
    try:
        told = datetime.fromisoformat(text) if text else otherwise
        return told if told.tzinfo else told.replace(tzinfo=UTC)
    except ValueError:
        return otherwise
