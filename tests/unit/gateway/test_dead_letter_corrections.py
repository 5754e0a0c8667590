"""Dead letters of several tenants, and dead letters sent with another body."""

from dataclasses import replace
from typing import Any

import pytest

from services.contracts.errors import BadField
from services.contracts.events import DeploymentChanged
from services.gateway.domain.dead_letters import DeadLetter
from services.gateway.domain.redelivery import Redelivery, redeliver_corrected
from services.gateway.domain.requests import Caller
from services.gateway.errors import RedeliveredAlready, UnknownDeadLetter
from services.gateway.handlers import dead_letters as handlers
from services.gateway.handlers.dead_letters import RedeliverDeadLetters, redeliver_dead_letters
from services.kit.messaging.envelope import MAX_EVENT_BYTES, Message, decode, id_of
from tests.unit.gateway.dead_letter_log import DeadLetterLog
from tests.unit.gateway.fakes import GatewayFleet
from tests.unit.gateway.test_dead_letters import (
    ADMIN,
    ALL,
    DATASET,
    DEAD,
    PLAIN,
    TOPIC,
    encoded,
    gateway,
    give_up,
    log,
    redeliver,
)

__all__ = ["gateway", "log"]

# --- tenants -----------------------------------------------------------------------------------

STRUCTURED = (
    b'{"specversion":"1.0","id":"mine","type":"dataset.ready","tenant":"acme","data":' + (PLAIN.value or b"") + b"}"
)


@pytest.mark.parametrize(
    "message",
    [
        encoded(DATASET, tenant="acme"),
        replace(PLAIN, value=STRUCTURED),
        replace(encoded(DATASET, tenant="acme"), value=b"\x80 not an event"),
        replace(encoded(DATASET, tenant="acme"), value=b"x" * (MAX_EVENT_BYTES + 1)),
    ],
    ids=["binary", "structured", "malformed", "truncated"],
)
async def test_another_tenants_letters_are_not_there(
    gateway: GatewayFleet, log: DeadLetterLog, message: Message
) -> None:
    await give_up(log, message)
    theirs = Caller(tenant="acme", idempotency_key="", actor="admin:2")
    name = "dataset.ready/0/0"
    assert (await handlers.list_dead_letters(ALL, "default", gateway.ports)).dead_letters == []
    with pytest.raises(UnknownDeadLetter):
        await handlers.get_dead_letter(name, "default", gateway.ports)
    assert (await redeliver(gateway)).redeliveries == []
    with pytest.raises(UnknownDeadLetter):
        await redeliver_dead_letters(RedeliverDeadLetters((name,)), ADMIN, gateway.ports)
    assert log.on_topic(TOPIC) == []
    [dead_letter] = (await handlers.list_dead_letters(ALL, "acme", gateway.ports)).dead_letters
    assert dead_letter.address == name
    assert len((await redeliver(gateway, caller=theirs)).redeliveries) == 1


async def test_a_correction_stays_in_the_tenant_of_its_letter(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    dead_letter = await give_up(log, replace(encoded(DATASET, tenant="acme"), value=b"{}"))
    theirs = Caller(tenant="acme", idempotency_key="", actor="admin:2")
    foreign = STRUCTURED.replace(b'"acme"', b'"other"')
    with pytest.raises(BadField):  # a wrapped event is no event of the topic
        await redeliver(gateway, dead_letter, caller=theirs, corrected_body=foreign)
    await redeliver(gateway, dead_letter, caller=theirs, corrected_body=PLAIN.value)
    assert decode(log.on_topic(TOPIC)[0], gateway.clock.now()).tenant == "acme"


async def test_a_marker_or_an_origin_of_another_tenant_changes_nothing(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    await give_up(log)
    forged = (("dlq-redelivered", "eve"), ("dlq-letter", "dataset.ready/0/0"), ("dlq-cut", "5"))
    for headers in (forged, (("redelivery-of", "dataset.ready/0/0"),)):
        theirs = encoded(DATASET, tenant="acme")
        await give_up(log, replace(theirs, headers=(*theirs.headers, *headers)))
    await log.send([Message(DEAD, b"docs", None, (*forged, ("dlq-tenant", "acme")))])
    [mine] = (await handlers.list_dead_letters(ALL, "default", gateway.ports)).dead_letters
    assert mine.status == "waiting"
    listing = await handlers.list_dead_letters(ALL, "acme", gateway.ports)
    assert [(one.status, one.truncated_from) for one in listing.dead_letters] == [("waiting", 0), ("waiting", 0)]


# --- corrections -------------------------------------------------------------------------------


def corrected(gateway: GatewayFleet, dead_letter: DeadLetter, body: bytes | None, **options: Any) -> Redelivery:
    options.setdefault("again", False)
    return redeliver_corrected(dead_letter, b"{}", body or b"", gateway.clock.now(), **options)


OTHER = DATASET.model_copy(update={"model": "others"}).model_dump_json().encode()


async def test_a_corrected_body_is_an_event_of_its_own_caused_by_the_first(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    wrong = Message(TOPIC, b"wrong key", b'{"dataset": "docs"}', (("traceparent", "t"),))
    dead_letter = await give_up(log, wrong)
    await redeliver(gateway, dead_letter, corrected_body=PLAIN.value)
    [sent] = log.on_topic(TOPIC)
    envelope = decode(sent, gateway.clock.now())
    first = dead_letter.record.event_id
    assert envelope.id != first == id_of(wrong)
    assert (envelope.causation, envelope.correlation_id, sent.key) == (first, first, b"docs")
    assert sent.header("redelivery-of") == dead_letter.address


async def test_the_same_correction_twice_is_one_event(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    dead_letter = await give_up(log, Message(TOPIC, b"docs", b"{}"))
    first, same, other = [corrected(gateway, dead_letter, body).event_id for body in (PLAIN.value, PLAIN.value, OTHER)]
    assert first == same != other


async def test_a_second_correction_that_differs_is_refused_unless_it_is_requested(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    dead_letter = await give_up(log, Message(TOPIC, b"docs", b"{}"))
    await redeliver(gateway, dead_letter, corrected_body=PLAIN.value)
    [dead_letter] = log.all()
    assert corrected(gateway, dead_letter, PLAIN.value).event_id == dead_letter.redelivered_as
    with pytest.raises(RedeliveredAlready):
        corrected(gateway, dead_letter, OTHER)
    assert corrected(gateway, dead_letter, OTHER, again=True).event_id != dead_letter.redelivered_as


async def test_a_correction_that_is_no_event_is_refused_with_its_field(
    gateway: GatewayFleet, log: DeadLetterLog
) -> None:
    dead_letter = await give_up(log, Message(TOPIC, b"docs", b"{}"))
    with pytest.raises(BadField, match="uri: Field required"):
        await redeliver(gateway, dead_letter, corrected_body=b'{"dataset": "docs"}')
    assert log.on_topic(TOPIC) == []


async def test_an_event_of_a_compacted_topic_is_not_corrected(gateway: GatewayFleet, log: DeadLetterLog) -> None:
    """Else any generation of any deployment could be published past the gate."""
    event = DeploymentChanged(deployment="docs", model="m", generation=3, targets=[], reason="r")
    await log.send([replace(encoded(event, "evt-3"), topic="deployment.changed.dlq")])
    newer = event.model_copy(update={"generation": 9}).model_dump_json().encode()
    with pytest.raises(BadField, match="are not corrected"):
        await redeliver(gateway, log.all()[0], corrected_body=newer)
    assert log.on_topic("deployment.changed") == []
