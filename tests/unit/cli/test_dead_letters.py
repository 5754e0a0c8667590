"""Dead letters sent again: the same event to whoever handled it, a first one to whoever did not."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from services.cli.app import app
from services.cli.commands.dlq import age, readable
from services.cli.errors import CliError, Exit
from services.cli.launcher.topics import load_topics
from services.cli.letters import NOTE, RECORD_BYTES, DeadLetter, named_letter, newest_of, topic_of
from services.cli.replaying import Planned, carry_out, content, corrected, plan
from services.contracts.events import DeploymentChanged
from services.kit.core.retention import DEAD_LETTER_RETENTION, EVENT_RETENTION, INBOX_RETENTION
from services.kit.messaging.envelope import Message, decode, id_of
from tests.unit.cli.letters import DATASET, PLAIN, Bus, Service, days, told

TOPIC, DEAD = "dataset.ready", "dataset.ready.dlq"


@pytest.fixture
def bus() -> Bus:
    return Bus()


async def buried(bus: Bus, message: Message = PLAIN, service: str = "trainer") -> DeadLetter:
    await Service(bus, service).deliver(message)
    return bus.letters()[-1]


def planned(
    bus: Bus, *letters: DeadLetter, again: bool = False, latest: dict[tuple[str, str], str] | None = None
) -> list[Planned]:
    return plan(letters or bus.letters(), again=again, now=bus.clock.now(), latest=latest or {})


def replay(bus: Bus, *letters: DeadLetter, again: bool = False) -> int:
    return carry_out(planned(bus, *letters, again=again), bus, bus.clock.now())


# --- what is listed ----------------------------------------------------------------------------


async def test_a_letter_tells_who_gave_it_up_why_and_what_it_was(bus: Bus) -> None:
    letter = await buried(bus, told(DATASET, "evt-1"))
    document = letter.document(bus.clock.now())
    assert letter.name == "dataset.ready/0/0"
    assert {name: document[name] for name in ("status", "code", "tries", "by", "key", "event_id", "age_seconds")} == {
        "status": "waiting", "code": "not_now", "tries": 1, "by": "trainer", "key": "docs", "event_id": "evt-1",
        "age_seconds": 0.0,
    }  # fmt: skip


async def test_a_replayed_letter_is_known_by_the_note_beside_it(bus: Bus) -> None:
    await buried(bus)
    replay(bus)
    [letter] = bus.letters()
    assert (letter.status, letter.replayed_at) == ("replayed", bus.clock.now())
    assert [NOTE in seen.headers for seen in bus.on_topic(DEAD)] == [False, True]


async def test_a_replay_whose_note_was_lost_is_known_by_the_letter_that_it_became(bus: Bus) -> None:
    first = await buried(bus)
    replay(bus)
    bus.records = [seen for seen in bus.records if NOTE not in seen.headers]
    await Service(bus).deliver(bus.messages(TOPIC)[0])
    origin, second = bus.letters()
    assert (origin.name, origin.status, origin.failed_again) == (first.name, "failed again", second.name)


def test_a_letter_is_named_by_topic_partition_and_offset() -> None:
    assert topic_of("dataset.ready/0/12") == TOPIC
    assert topic_of("dataset.ready.dlq/0/12") == TOPIC
    for wrong in ("dataset.ready", "dataset.ready/12", "nonsense/0/1", "dataset.ready/0/x"):
        with pytest.raises(CliError):
            topic_of(wrong)


async def test_a_letter_that_is_not_there_is_not_found(bus: Bus) -> None:
    await buried(bus)
    assert named_letter("dataset.ready.dlq/0/0", bus.letters()).name == "dataset.ready/0/0"
    with pytest.raises(CliError, match="no dead letter"):
        named_letter("dataset.ready/0/9", bus.letters())


# --- what is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [PLAIN, replace(PLAIN, headers=(("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),)), told(DATASET)],
    ids=["plain", "plain in a trace", "binary"],
)
async def test_a_replay_has_the_bytes_key_headers_and_id_of_the_first_delivery(bus: Bus, message: Message) -> None:
    await buried(bus, message)
    replay(bus)
    [sent] = bus.messages(TOPIC)
    assert (sent.key, sent.value, id_of(sent)) == (message.key, message.value, id_of(message))
    assert sent.headers[: len(message.headers)] == message.headers
    assert [name for name, _ in sent.headers[len(message.headers) :]] == ["replay-of", "replay-first-at"]


async def test_a_structured_event_keeps_the_id_that_its_body_tells(bus: Bus) -> None:
    body = b'{"specversion":"1.0","id":"mine","type":"dataset.ready","data":' + (PLAIN.value or b"") + b"}"
    await buried(bus, replace(PLAIN, value=body))
    replay(bus)
    assert decode(bus.messages(TOPIC)[0], bus.clock.now()).id == "mine"


async def test_a_letter_replayed_twice_to_a_mended_consumer_has_one_effect(bus: Bus) -> None:
    service = Service(bus)
    await service.deliver(PLAIN)
    service.mended = True
    for again in (False, True):
        replay(bus, again=again)
    for message in bus.messages(TOPIC):
        await service.deliver(message)
    assert len(bus.messages(TOPIC)) == 2
    assert service.effects == [id_of(PLAIN)]


async def test_a_letter_whose_event_was_handled_meanwhile_changes_nothing(bus: Bus) -> None:
    service = Service(bus)
    await service.deliver(PLAIN)
    service.mended = True
    await service.deliver(PLAIN)  # its producer sent it once more
    replay(bus)
    await service.deliver(bus.messages(TOPIC)[0])
    assert len(service.effects) == 1


async def test_what_one_service_handled_and_another_gave_up_has_one_effect_in_each(bus: Bus) -> None:
    well, broken = Service(bus, "well", mended=True), Service(bus, "broken")
    for service in (well, broken):
        await service.deliver(PLAIN)
    broken.mended = True
    replay(bus)
    for service in (well, broken):
        await service.deliver(bus.messages(TOPIC)[0])
    assert (len(well.effects), len(broken.effects)) == (1, 1)


async def test_the_letters_of_one_event_from_two_services_are_one_record(bus: Bus) -> None:
    await buried(bus, service="trainer")
    await buried(bus, service="monitor")
    assert replay(bus) == 1
    assert [letter.status for letter in bus.letters()] == ["replayed", "replayed"]


async def test_a_letter_that_fails_again_remembers_its_origin(bus: Bus) -> None:
    service = Service(bus)
    await service.deliver(PLAIN)
    first_at = bus.clock.now()
    await bus.clock.advance(60)
    replay(bus)
    await service.deliver(bus.messages(TOPIC)[0])
    origin, second = bus.letters()
    assert (origin.status, origin.failed_again, second.status) == ("failed again", second.name, "waiting")
    assert second.seen.headers["replay-of"] == origin.name
    assert (second.first_buried_at, second.event_id) == (first_at, origin.event_id)


# --- what is left out --------------------------------------------------------------------------


async def test_a_letter_is_not_sent_a_second_time_unless_it_is_asked_for(bus: Bus) -> None:
    await buried(bus)
    replay(bus)
    assert [one.skipped for one in planned(bus)] == ["replayed_already"]
    assert [one.skipped for one in planned(bus, again=True)] == [""]


async def test_what_cannot_be_read_is_not_sent_to_become_a_letter_again(bus: Bus) -> None:
    letter = await buried(bus, Message(TOPIC, b"docs", b"\x80\x81"))
    [one] = planned(bus, letter)
    assert (one.skipped, one.message) == ("malformed", None)
    assert "--edit" in one.why


async def test_a_letter_that_was_cut_is_not_sent(bus: Bus) -> None:
    letter = await buried(bus)
    cut = replace(letter, seen=replace(letter.seen, headers={**letter.seen.headers, "dlq-cut": "2000000"}))
    assert [one.skipped for one in planned(bus, cut)] == ["cut"]


async def test_a_letter_is_too_old_once_an_inbox_may_have_forgotten_its_event(bus: Bus) -> None:
    service = Service(bus)
    await service.deliver(PLAIN)
    await bus.clock.advance(days(29).total_seconds())
    replay(bus)
    await service.deliver(bus.messages(TOPIC)[0])
    assert [one.skipped for one in planned(bus, again=True)] == ["", ""]
    await bus.clock.advance(days(2).total_seconds())
    assert [one.skipped for one in planned(bus, again=True)] == ["too_old", "too_old"]


def test_an_inbox_remembers_longer_than_an_event_and_its_letter_are_kept() -> None:
    topics = {topic.name: int(topic.config["retention.ms"]) / 86_400_000 for topic in load_topics()}
    letters = {topics[name] for name in topics if name.endswith(".dlq")}
    events = {topics[name] for name in topics if not name.endswith(".dlq") and topics[name] > 0}
    assert (letters, max(events)) == ({DEAD_LETTER_RETENTION.days}, EVENT_RETENTION.days)
    assert EVENT_RETENTION + DEAD_LETTER_RETENTION < INBOX_RETENTION


async def test_of_a_compacted_topic_only_the_newest_of_a_key_is_sent(bus: Bus) -> None:
    event = DeploymentChanged(deployment="docs", model="m", generation=3, targets=[], reason="r")
    dead = replace(told(event, "evt-3"), topic="deployment.changed.dlq")
    bus([replace(dead, headers=(*dead.headers, ("dlq-at", bus.clock.now().isoformat())))])
    place = ("deployment.changed", "docs")
    assert [one.skipped for one in planned(bus, latest={place: "evt-4"})] == ["superseded"]
    assert [one.skipped for one in planned(bus)] == ["superseded"]  # compacted away: a newer one was there
    assert [one.skipped for one in planned(bus, latest={place: "evt-3"})] == [""]


# --- corrections -------------------------------------------------------------------------------


async def test_a_corrected_body_is_an_event_of_its_own_caused_by_the_first(bus: Bus) -> None:
    letter = await buried(bus, Message(TOPIC, b"wrong key", b'{"dataset": "docs"}', (("traceparent", "t"),)))
    one = corrected(letter, PLAIN.value or b"", bus.clock.now())
    assert one.message is not None
    envelope = decode(one.message, bus.clock.now())
    assert envelope.id != letter.event_id
    assert (envelope.causation, envelope.story, one.message.key) == (letter.event_id, letter.event_id, b"docs")
    assert one.message.header("replay-of") == letter.name


async def test_the_same_correction_twice_is_one_event_and_another_is_another(bus: Bus) -> None:
    letter = await buried(bus, Message(TOPIC, b"docs", b"{}"))
    other = DATASET.model_copy(update={"model": "others"}).model_dump_json().encode()
    made = [
        corrected(letter, body, bus.clock.now()).message for body in (PLAIN.value or b"", PLAIN.value or b"", other)
    ]
    ids = [id_of(message) for message in made if message is not None]
    assert ids[0] == ids[1] != ids[2]


async def test_a_second_correction_that_differs_is_refused_unless_it_is_asked_for(bus: Bus) -> None:
    letter, now = await buried(bus, Message(TOPIC, b"docs", b"{}")), bus.clock.now()
    first = corrected(letter, PLAIN.value or b"", now)
    carry_out([first], bus, now)
    [letter] = bus.letters()
    assert letter.replayed_as == first.event_id
    assert corrected(letter, PLAIN.value or b"", now).event_id == first.event_id
    other = DATASET.model_copy(update={"model": "others"}).model_dump_json().encode()
    with pytest.raises(CliError, match="replayed already"):
        corrected(letter, other, now)
    assert corrected(letter, other, now, again=True).event_id != first.event_id


async def test_a_correction_that_is_no_event_is_refused_with_its_field(bus: Bus) -> None:
    letter = await buried(bus, Message(TOPIC, b"docs", b"{}"))
    with pytest.raises(CliError, match="uri: Field required"):
        corrected(letter, b'{"dataset": "docs"}', bus.clock.now())


async def test_of_a_structured_event_the_content_is_corrected(bus: Bus) -> None:
    letter = await buried(bus, Message(TOPIC, b"docs", b'{"specversion": "1.0", "id": "mine", "data": {"a": 1}}'))
    assert content(letter) == b'{\n  "a": 1\n}'


# --- what is shown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (b'{"a":[1]}', "json", '{\n  "a": [\n    1\n  ]\n}'),
        ("kein JSON \u00e9".encode(), "text", "kein JSON \u00e9"),
        (b"\x1b[31mred", "text", "\\x1b[31mred"),
        (b'"\\u009b31m \\ud800"', "json", '"\\x9b31m \\xd800"'),
        (b"\x80\x04K\x01.", "hex", "00000000  80 04 4b 01 2e                                   ..K.."),
        (b"", "text", ""),
    ],
    ids=["json", "text", "escapes", "escapes in JSON", "bytes", "empty"],
)
def test_a_body_is_shown_as_what_it_is(value: bytes, form: str, shown: str) -> None:
    assert readable(value, 1000) == (form, shown)


def test_a_large_body_is_cut_and_says_so() -> None:
    form, shown = readable(b"\xff" * 100_000, 4000)
    assert (form, len(shown) < 8000) == ("hex", True)
    assert shown.endswith("... 99000 bytes more; --whole shows them")
    assert readable(b"a" * 5000, 4000)[1].endswith("... 1000 characters more; --whole shows them")
    assert readable(b"[" * 100_000, 4000)[0] == "text"


def test_an_age_is_told_in_its_largest_unit() -> None:
    assert [age(seconds) for seconds in (-1, 59, 150, 8000, 200_000)] == ["0 s", "59 s", "2 min", "2 h", "2 d"]


async def test_more_letters_than_memory_holds_leave_the_newest(bus: Bus) -> None:
    for _ in range(5):
        await buried(bus)
    kept, passed_over = newest_of(bus.on_topic(DEAD), 3 * (RECORD_BYTES + 4 * len(PLAIN.value or b"")))
    assert ([seen.offset for seen in kept], passed_over) == ([2, 3, 4], 2)


def test_a_replay_of_nothing_and_of_everything_at_once_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    for arguments in ([], ["dataset.ready/0/1", "--all"], ["nonsense"]):
        assert CliRunner().invoke(app, ["dlq", "replay", *arguments]).exit_code == Exit.USAGE
