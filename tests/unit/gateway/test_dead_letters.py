"""Dead letters redelivered: the same event to whoever handled it, a first one to whoever did not."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from faststream.kafka import KafkaBroker

from services.contracts.errors import BadField, Invalid
from services.contracts.events import DatasetReady, DeploymentChanged
from services.gateway.domain.dead_letters import MARKER, DeadLetter, DeadLetterFilter, read_position
from services.gateway.domain.requests import Caller
from services.gateway.errors import (
    NothingSelected,
    TooManyDeadLetters,
    UnknownDeadLetter,
    UnknownTopic,
)
from services.gateway.handlers import dead_letters as handlers
from services.gateway.handlers.dead_letters import Outcome, RedeliverDeadLetters, redeliver_dead_letters
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Envelope, Message, encode, id_of
from services.kit.messaging.in_memory import InMemorySubscribers
from tests.unit.gateway.dead_letter_log import DeadLetterLog
from tests.unit.gateway.fakes import GatewayFleet

TOPIC, DEAD = "dataset.ready", "dataset.ready.dlq"
DATASET = DatasetReady(dataset="docs", uri="file:///data/docs.jsonl", model="topics")
PLAIN = Message(TOPIC, b"docs", DATASET.model_dump_json().encode())
ADMIN = Caller(tenant="default", idempotency_key="", actor="admin:1")
ALL = DeadLetterFilter()


class NotNow(Invalid):
    """It is refused today."""


@pytest.fixture
def gateway() -> GatewayFleet:
    made = GatewayFleet()
    made.dead_letters = DeadLetterLog(made.clock)
    return made


@pytest.fixture
def log(gateway: GatewayFleet) -> DeadLetterLog:
    return gateway.dead_letters


@dataclass
class Service:
    """A consumer with an inbox that refuses until it is mended; its dead letters go to the log."""

    log: DeadLetterLog
    name: str = "trainer"
    mended: bool = False
    inbox: set[str] = field(default_factory=set)
    effects: list[str] = field(default_factory=list)

    async def deliver(self, message: Message) -> None:
        delivery = Delivery(self.log, self.log.clock, service=self.name)
        subscribers = InMemorySubscribers(self._subscribe, delivery, self.log.clock)
        await subscribers.open()
        await subscribers.deliver(message)
        await subscribers.close()

    def _subscribe(self, broker: KafkaBroker) -> None:
        broker.subscriber(TOPIC, group_id=self.name, auto_offset_reset="earliest")(self._handle)

    async def _handle(self, envelope: Envelope[DatasetReady]) -> None:
        if envelope.id in self.inbox:
            return
        if not self.mended:
            raise NotNow
        self.inbox.add(envelope.id)
        self.effects.append(envelope.id)


def encoded(event: Any, name: str = "evt-1", **more: Any) -> Message:
    return encode(Envelope(id=name, event=event, source="test", time=datetime(2026, 1, 1, tzinfo=UTC), **more))


async def give_up(log: DeadLetterLog, message: Message = PLAIN, service: str = "trainer") -> DeadLetter:
    await Service(log, service).deliver(message)
    return log.all()[-1]


async def redeliver(
    gateway: GatewayFleet, *dead_letters: DeadLetter, caller: Caller = ADMIN, **options: Any
) -> Outcome:
    """All of them, or those that are named."""
    names = tuple(dead_letter.address for dead_letter in dead_letters)
    command = RedeliverDeadLetters(names, None if names else ALL, **options)
    return await redeliver_dead_letters(command, caller, gateway.ports)


async def skipped(gateway: GatewayFleet, *dead_letters: DeadLetter, **options: Any) -> list[str]:
    return [one.skipped for one in (await redeliver(gateway, *dead_letters, dry_run=True, **options)).redeliveries]


# --- what is listed ----------------------------------------------------------------------------


async def test_a_letter_says_who_gave_it_up_why_and_what_it_was(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    await give_up(log, encoded(DATASET, "evt-1"))
    [dead_letter] = (await handlers.list_dead_letters(ALL, "default", gateway.ports)).dead_letters
    assert (dead_letter.address, dead_letter.status, dead_letter.code, dead_letter.tries) == (
        "dataset.ready/0/0",
        "waiting",
        "not_now",
        1,
    )
    assert (dead_letter.header("dlq-by"), dead_letter.key, dead_letter.record.event_id) == ("trainer", "docs", "evt-1")


async def test_a_listing_is_the_newest_first_and_filtered(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    for name in ("evt-1", "evt-2"):
        await give_up(log, encoded(DATASET, name))
        await gateway.clock.advance(60)
    await give_up(log, Message(TOPIC, b"docs", b"\x80"))
    await redeliver(gateway, log.all()[1])

    async def listed(**chosen: Any) -> list[str]:
        listing = await handlers.list_dead_letters(DeadLetterFilter(**chosen), "default", gateway.ports)
        return [dead_letter.address.rpartition("/")[2] for dead_letter in listing.dead_letters]

    assert await listed() == ["2", "1", "0"]
    assert await listed(code="malformed_event") == ["2"]
    assert await listed(waiting=True) == ["2", "0"]
    assert await listed(since=log.all()[1].given_up_at) == ["2", "1"]
    assert await listed(topic="dataset.ready.dlq") == ["2", "1", "0"]
    assert await listed(topic="model.trained") == []
    with pytest.raises(UnknownTopic):
        await listed(topic="nonsense")


async def test_a_redelivered_letter_is_known_by_the_marker_beside_it(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    await give_up(log)
    await redeliver(gateway)
    [dead_letter] = log.all()
    assert (dead_letter.status, dead_letter.redelivered_at) == ("redelivered", gateway.clock.now())
    assert [message.header(MARKER) for message in log.on_topic(DEAD)] == [None, "admin:1"]


async def test_a_redelivery_whose_marker_was_lost_is_known_by_the_letter_that_it_became(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    first = await give_up(log)
    await redeliver(gateway)
    log.records = [pair for pair in log.records if pair[0].header(MARKER) is None]
    await Service(log).deliver(log.on_topic(TOPIC)[0])
    origin, second = log.all()
    assert (origin.address, origin.status, origin.failed_again) == (first.address, "failed_again", second.address)


def test_a_letter_is_named_by_topic_partition_and_offset() -> None:
    assert str(read_position("dataset.ready/0/12")) == str(read_position("dataset.ready.dlq/0/12"))
    for wrong in ("dataset.ready", "dataset.ready/12", "dataset.ready/0/x", "dataset.ready/0/1/2", "a/0/" + "9" * 40):
        with pytest.raises(UnknownDeadLetter):
            read_position(wrong)
    with pytest.raises(UnknownTopic):
        read_position("nonsense/0/1")


async def test_a_letter_that_is_not_there_is_not_found(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    await give_up(log)
    dead_letter, body = await handlers.get_dead_letter("dataset.ready.dlq/0/0", "default", gateway.ports)
    assert (dead_letter.address, body) == ("dataset.ready/0/0", PLAIN.value)
    with pytest.raises(UnknownDeadLetter):
        await handlers.get_dead_letter("dataset.ready/0/9", "default", gateway.ports)


# --- what is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [PLAIN, replace(PLAIN, headers=(("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),)), encoded(DATASET)],
    ids=["plain", "plain in a trace", "binary"],
)
async def test_a_redelivery_has_the_bytes_key_headers_and_id_of_the_first_delivery(
    gateway: GatewayFleet, log: DeadLetterLog, message: Message
) -> None:
    await give_up(log, message)
    assert (await redeliver(gateway)).sent == 1
    [sent] = log.on_topic(TOPIC)
    assert (sent.key, sent.value, id_of(sent)) == (message.key, message.value, id_of(message))
    assert sent.headers[: len(message.headers)] == message.headers
    assert [name for name, _ in sent.headers[len(message.headers) :]] == ["redelivery-of", "redelivery-first-at"]


async def test_a_dry_run_sends_nothing(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    await give_up(log)
    assert [one.event_id for one in (await redeliver(gateway, dry_run=True)).redeliveries] == [id_of(PLAIN)]
    assert len(log.records) == 1


async def test_a_letter_sent_twice_to_a_mended_consumer_has_one_effect(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    service = Service(log)
    await service.deliver(PLAIN)
    service.mended = True
    for again in (False, True):
        await redeliver(gateway, again=again)
    for message in log.on_topic(TOPIC):
        await service.deliver(message)
    assert len(log.on_topic(TOPIC)) == 2
    assert service.effects == [id_of(PLAIN)]


async def test_a_service_that_handled_the_event_ignores_the_redelivery(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    well, broken = Service(log, "well", mended=True), Service(log, "broken")
    await well.deliver(PLAIN)
    await broken.deliver(PLAIN)
    broken.mended = True
    await redeliver(gateway)
    for service in (well, broken):
        await service.deliver(log.on_topic(TOPIC)[0])
    assert (len(well.effects), len(broken.effects)) == (1, 1)


async def test_the_letters_of_one_event_from_two_services_are_one_record(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    await give_up(log, service="trainer")
    await give_up(log, service="monitor")
    assert (await redeliver(gateway)).sent == 1
    assert [dead_letter.status for dead_letter in log.all()] == ["redelivered", "redelivered"]


async def test_a_letter_that_fails_again_refers_to_its_origin(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    service = Service(log)
    await service.deliver(PLAIN)
    first_at = gateway.clock.now()
    await gateway.clock.advance(60)
    await redeliver(gateway)
    await service.deliver(log.on_topic(TOPIC)[0])
    origin, second = log.all()
    assert (origin.status, origin.failed_again, second.status) == ("failed_again", second.address, "waiting")
    assert second.header("redelivery-of") == origin.address
    assert (second.first_given_up_at, second.record.event_id) == (first_at, origin.record.event_id)


@pytest.mark.slow
async def test_many_letters_go_in_batches_each_marked_after_it_was_sent(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    for number in range(250):
        await give_up(log, encoded(DATASET, f"evt-{number}"))
    assert (await redeliver(gateway)).sent == 250
    sent = [MARKER if message.header(MARKER) else message.topic for message, _ in log.records[250:]]
    assert sent == [*[TOPIC] * 100, *[MARKER] * 100] * 2 + [*[TOPIC] * 50, *[MARKER] * 50]


# --- what is skipped ---------------------------------------------------------------------------


async def test_a_dead_letter_is_not_sent_a_second_time_unless_that_is_requested(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    await give_up(log)
    await redeliver(gateway)
    assert await skipped(gateway) == ["redelivered_already"]
    assert await skipped(gateway, again=True) == [""]


async def test_what_cannot_be_read_is_not_sent_to_become_a_letter_again(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    await give_up(log, Message(TOPIC, b"docs", b"\x80\x81"))
    assert await skipped(gateway) == ["malformed"]


async def test_a_truncated_letter_is_not_sent(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    await give_up(log)
    [(message, at)] = log.records
    log.records = [(replace(message, headers=(*message.headers, ("dlq-cut", "2000000"))), at)]
    assert await skipped(gateway) == ["truncated"]


async def test_a_letter_is_too_old_once_an_inbox_may_have_lost_its_event(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    service = Service(log)
    await service.deliver(PLAIN)
    await gateway.clock.advance(timedelta(days=29).total_seconds())
    await redeliver(gateway)
    await service.deliver(log.on_topic(TOPIC)[0])
    assert await skipped(gateway, again=True) == ["", ""]
    await gateway.clock.advance(timedelta(days=2).total_seconds())
    assert await skipped(gateway, again=True) == ["too_old", "too_old"]


async def test_of_a_compacted_topic_only_the_newest_of_a_key_is_sent(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    event = DeploymentChanged(deployment="docs", model="m", generation=3, targets=[], reason="r")
    dead = replace(encoded(event, "evt-3"), topic="deployment.changed.dlq")
    await log.send([replace(dead, headers=(*dead.headers, ("dlq-at", gateway.clock.now().isoformat())))])
    assert await skipped(gateway) == ["superseded"]  # compacted away: a newer one was there
    await log.send([encoded(event, "evt-3")])
    assert await skipped(gateway) == [""]
    await log.send([encoded(event, "evt-4")])
    assert await skipped(gateway) == ["superseded"]


async def test_nothing_both_and_too_much_are_refused(
    gateway: GatewayFleet, log: DeadLetterLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_letter = await give_up(log)
    for command in (RedeliverDeadLetters(), RedeliverDeadLetters((dead_letter.address,), ALL)):
        with pytest.raises(NothingSelected):
            await redeliver_dead_letters(command, ADMIN, gateway.ports)
    with pytest.raises(BadField, match="one letter"):
        await redeliver(gateway, corrected_body=PLAIN.value)
    await give_up(log)
    monkeypatch.setattr(handlers, "MAX_LETTERS", 1)
    with pytest.raises(TooManyDeadLetters):
        await redeliver(gateway)
    assert log.on_topic(TOPIC) == []
