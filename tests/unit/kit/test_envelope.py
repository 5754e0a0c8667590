"""The three wire forms of an event, and what is refused of them."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.events import BY_TOPIC, EVENTS, Event, FeedbackReceived, RegistryFact
from services.kit.messaging.envelope import (
    MAX_EVENT_BYTES,
    Envelope,
    MalformedEvent,
    Message,
    UnknownEventType,
    decode,
    encode,
    id_of,
)
from services.kit.messaging.records import to_message
from tests.contracts.examples import EXAMPLES

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
FEEDBACK = FeedbackReceived(deployment="chapters", request="req-1", label="files")
BODY = FEEDBACK.model_dump_json().encode()
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def plain(value: bytes | None, *headers: tuple[str, str], key: bytes | None = None) -> Message:
    return Message("feedback.received", key, value, headers)


def structured(**attributes: object) -> Message:
    response = {"specversion": "1.0", "id": "e-1", "source": "kcat", "data": FEEDBACK.model_dump(), **attributes}
    return plain(json.dumps(response).encode(), ("content-type", "application/cloudevents+json"))


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.topic)
def test_every_event_comes_back_from_binary_mode_as_it_was_sent(event: Event) -> None:
    sent = Envelope(
        id="e-1",
        event=event,
        source="millrace/test",
        time=NOON,
        tenant="acme",
        causation="e-0",
        correlation="e-00",
        trace={"traceparent": TRACEPARENT, "tracestate": "a=1"},
    )
    assert decode(encode(sent), NOON) == sent


def test_one_name_of_two_tenants_is_two_keys() -> None:
    """Or a compacted topic would keep one of them."""
    theirs = Envelope(id="e-1", event=FEEDBACK, source="s", time=NOON, tenant="acme")
    assert encode(theirs).key == b"acme/chapters"


def test_binary_mode_has_the_headers_of_the_kafka_binding_and_the_key_that_keeps_order() -> None:
    message = encode(Envelope(id="e-1", event=FEEDBACK, source="s", time=NOON, trace={"traceparent": TRACEPARENT}))
    assert message.key == b"chapters"
    assert dict(message.headers) == {
        "ce_specversion": "1.0",
        "ce_id": "e-1",
        "ce_source": "s",
        "ce_type": "millrace.feedback.received.v1",
        "ce_subject": "chapters",
        "ce_time": "2026-11-03T12:00:00+00:00",
        "ce_tenant": "default",
        "ce_correlationid": "e-1",
        "content-type": "application/json",
        "traceparent": TRACEPARENT,
    }


def test_an_event_from_outside_opens_a_workflow_of_its_own() -> None:
    envelope = decode(structured(), NOON)
    assert (envelope.id, envelope.correlation, envelope.correlation_id) == ("e-1", "", "e-1")


def test_structured_mode_carries_its_attributes_beside_the_data() -> None:
    response = decode(structured(type="millrace.feedback.received.v1", tenant="acme", traceparent=TRACEPARENT), NOON)
    assert response.event == FEEDBACK
    assert (response.source, response.tenant, response.trace) == ("kcat", "acme", {"traceparent": TRACEPARENT})


def test_plain_json_without_headers_is_an_event_and_its_redelivery_has_the_same_id() -> None:
    first, again = decode(plain(BODY, key=b"k"), NOON), decode(plain(BODY, key=b"k"), NOON)
    other = decode(plain(BODY + b" ", key=b"k"), NOON)
    assert first.event == FEEDBACK
    assert first.id == again.id != other.id
    assert (first.source, first.tenant, first.time) == ("external", "default", NOON)


def test_the_topic_is_accepted_as_a_type() -> None:
    assert decode(plain(BODY, ("ce_type", "feedback.received")), NOON).event == FEEDBACK


def test_unknown_fields_are_ignored() -> None:
    response = json.loads(BODY) | {"colour": "blue"}
    assert decode(plain(json.dumps(response).encode()), NOON).event == FEEDBACK


@pytest.mark.parametrize(
    ("message", "field", "says"),
    [
        (plain(None), None, "it is empty"),
        (plain(b""), None, "it is empty"),
        (plain(b"\x80\x04\x95pickle"), None, "it is not JSON"),
        (plain(b'{"deployment": NaN}'), None, "it is not JSON"),
        (plain(b"[1, 2]"), None, "it is not a JSON object"),
        (plain(b"[" * 100_000), None, "it is not JSON"),
        (plain(b'{"a":' * 300 + b"1" + b"}" * 300), None, "it is nested too deep"),
        (plain(b" " * (MAX_EVENT_BYTES + 1)), None, "it is larger than 900000 bytes"),
        (plain(b'{"deployment": "chapters", "label": "x"}'), "request", "request: Field required"),
        (plain(b'{"deployment": "Not A Name", "request": "r", "label": "x"}'), "deployment", "deployment: String"),
        (plain(BODY, ("ce_specversion", "1.0")), "id", "id is missing"),
        (plain(BODY, ("ce_id", "")), "id", "id must have 1 to 200 characters"),
        (plain(BODY, ("ce_id", "x" * 201)), "id", "id must have 1 to 200 characters"),
        (plain(BODY, ("ce_id", "nul\0")), "id", "id holds characters that cannot be printed"),
        (plain(BODY, ("ce_tenant", "../other")), "tenant", "tenant is not a name"),
        (structured(data=7), None, "Input should be an object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_malformed_is_refused_with_the_field_it_fails_on(
    message: Message, field: str | None, says: str
) -> None:
    with pytest.raises(MalformedEvent, match=says) as refused:
        decode(message, NOON)
    assert refused.value.body().field == field
    assert refused.value.body().hint == "'proto/events/feedback.received.v1.json' is its JSON Schema"


def test_a_version_that_is_not_ours_is_refused_with_the_type_that_is() -> None:
    with pytest.raises(UnknownEventType) as refused:
        decode(plain(BODY, ("ce_type", "millrace.feedback.received.v9")), NOON)
    assert refused.value.body().field == "type"
    assert "millrace.feedback.received.v1" in str(refused.value.body().hint)


def test_a_topic_without_an_event_is_refused() -> None:
    with pytest.raises(MalformedEvent, match="no event belongs to this topic"):
        decode(Message("weather", None, b"{}"), NOON)


@pytest.mark.parametrize("time", ["", "yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_cannot_be_stored_is_replaced_by_the_receivers(time: str) -> None:
    assert decode(plain(BODY, ("ce_time", time)), NOON).time == NOON


def test_times_become_utc() -> None:
    response = decode(plain(BODY, ("ce_time", "2026-11-03T14:00:00+02:00")), datetime(2020, 1, 1, tzinfo=UTC)).time
    assert (response, response.tzinfo) == (NOON, UTC)


def test_header_bytes_that_are_no_text_are_replaced_and_a_null_is_nothing() -> None:
    class Record:
        topic, key, value = "feedback.received", None, BODY
        headers = (("ce_source", b"\xff\xfe"), ("x", None))

    message = to_message(Record())
    assert message.headers == (("ce_source", "\ufffd\ufffd"), ("x", ""))
    assert decode(message, NOON).event == FEEDBACK


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=20,
)
topics = st.sampled_from([*BY_TOPIC, "weather"])
names = st.sampled_from(
    ["ce_id", "ce_type", "ce_time", "ce_tenant", "ce_specversion", "ce_source", "ce_causationid", "traceparent", "x"]
)


def is_an_event_or_refused(message: Message) -> None:
    try:
        envelope = decode(message, NOON)
    except (MalformedEvent, UnknownEventType) as error:
        response = error.body().message
    else:
        response = envelope.event.topic
        assert id_of(message) == envelope.id
        assert envelope.time.utcoffset() is not None
        encode(envelope)
    assert response
    assert isinstance(id_of(message), str)  # whatever came has one, or visibly none


@given(topics, st.none() | st.binary(), st.lists(st.tuples(names, st.text()), max_size=6))
def test_any_bytes_are_an_event_or_refused(topic: str, value: bytes | None, headers: list[tuple[str, str]]) -> None:
    is_an_event_or_refused(Message(topic, None, value, tuple(headers)))


@given(topics, anything, st.lists(st.tuples(names, st.text()), max_size=6))
def test_any_json_is_an_event_or_refused(topic: str, value: object, headers: list[tuple[str, str]]) -> None:
    is_an_event_or_refused(Message(topic, b"k", json.dumps(value).encode(), tuple(headers)))


@given(st.sampled_from(EXAMPLES), st.data())
def test_any_event_with_one_field_replaced_is_an_event_or_refused(event: Event, data: st.DataObject) -> None:
    response = event.model_dump(mode="json")
    response[data.draw(st.sampled_from(sorted(response)))] = data.draw(anything)
    wrapped = {"specversion": data.draw(anything), "id": data.draw(anything), "data": response}
    is_an_event_or_refused(Message(event.topic, None, json.dumps(response).encode()))
    is_an_event_or_refused(Message(event.topic, None, json.dumps(wrapped).encode()))


@given(st.binary(min_size=1, max_size=3), st.data())
def test_a_bit_of_damage_anywhere_leaves_an_event_or_a_refusal(damage: bytes, data: st.DataObject) -> None:
    field_name = data.draw(st.integers(0, len(BODY)))
    is_an_event_or_refused(plain(BODY[:field_name] + damage + BODY[field_name + 1 :]))


@pytest.mark.parametrize("depth", [150, 250, 254, 255, 300, 900, 1_100, 100_000])
@pytest.mark.parametrize("opening", [b'{"a":', b"["])
def test_nesting_of_any_depth_is_an_event_or_refused(depth: int, opening: bytes) -> None:
    fact = next(event for event in EXAMPLES if isinstance(event, RegistryFact))
    before, after = fact.model_dump_json().split('"payload":{', 1)
    deep = opening * depth + b"1" + (b"}" if opening == b'{"a":' else b"]") * depth
    value = before.encode() + b'"payload":{"deep":' + deep + b"," + after.encode()
    is_an_event_or_refused(Message("registry.history", None, value))


@pytest.mark.parametrize(
    "odd", ["1" * 400, "1e999", "-0", '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', "18446744073709551616"]
)
def test_odd_numbers_and_texts_are_an_event_or_refused(odd: str) -> None:
    for event in EVENTS:
        for field in event.model_fields:
            is_an_event_or_refused(Message(event.topic, None, f'{{"{field}": {odd}}}'.encode()))
    is_an_event_or_refused(structured(data={"deployment": "a", "request": "r", "label": "\0"}))
