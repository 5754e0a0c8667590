"""proto/asyncapi.json: an AsyncAPI 3.0 document that hangs together and tells what the code does."""

import ast
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from scripts.asyncapi import HEADERS
from services.contracts.consumers import CONSUMERS
from services.contracts.events import BY_TOPIC, EVENTS
from services.kit.messaging.envelope import Envelope, Message, decode, encode
from tests.contracts.examples import EXAMPLES, NOON

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
DOCUMENT: dict[str, Any] = json.loads((PROTO / "asyncapi.json").read_text())


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def resolve(pointer: str) -> Any:
    match: Any = DOCUMENT
    for part in pointer.removeprefix("#/").split("/"):
        match = match[part.replace("~1", "/").replace("~0", "~")]
    return match


def test_it_has_the_fields_that_asyncapi_3_asks_for() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    assert all({"host", "protocol"} <= set(server) for server in DOCUMENT["servers"].values())
    assert all({"action", "channel"} <= set(operation) for operation in DOCUMENT["operations"].values())
    assert {operation["action"] for operation in DOCUMENT["operations"].values()} == {"send", "receive"}


def test_every_reference_resolves() -> None:
    for reference in references(DOCUMENT):
        if reference.startswith("#/"):
            assert resolve(reference) is not None
        else:
            assert json.loads((PROTO / reference).read_text())["type"] == "object"


def test_an_operation_names_only_messages_of_its_own_channel() -> None:
    for operation in DOCUMENT["operations"].values():
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])


def test_every_topic_has_a_channel_and_a_dead_letter_channel() -> None:
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert addresses == {topic for name in BY_TOPIC for topic in (name, f"{name}.dlq")}


def test_compacted_topics_say_so() -> None:
    for channel in DOCUMENT["channels"].values():
        event = BY_TOPIC.get(channel["address"])
        if event is not None:
            policy = channel["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"]
            assert policy == (["compact"] if event.compacted else ["delete"])


def test_each_event_has_one_sender_its_owner() -> None:
    for event in EVENTS:
        senders = [
            operation["tags"][0]["name"]
            for operation in DOCUMENT["operations"].values()
            if operation["action"] == "send" and operation["title"].endswith(f" {event.topic}")
        ]
        assert senders == [event.owner]
    assert set(CONSUMERS) == set(BY_TOPIC)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.topic)
def test_what_the_kit_sends_has_the_headers_that_are_documented(example: Any) -> None:
    envelope = Envelope(
        id="evt-1",
        event=example,
        source="/millrace/trainer",
        time=datetime(2026, 11, 3, tzinfo=UTC),
        causation="evt-0",
        correlation="story-1",
        trace={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "tracestate": "a=b"},
    )
    headers = dict(encode(envelope).headers)
    assert set(headers) == set(HEADERS["properties"])
    jsonschema.Draft202012Validator(HEADERS).validate(headers)


def taken_by(service: str) -> set[str]:
    """The topics of the events that a room's inbound/events.py names; nothing else of it takes events."""
    tree = ast.parse((ROOT / f"services/{service}/inbound/events.py").read_text())
    named = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "services.contracts.events"
        for alias in node.names
    }
    return {event.topic for event in EVENTS if event.__name__ in named}


@pytest.mark.parametrize("service", ["gateway", "inference", "monitor", "registry", "trainer"])
def test_a_service_takes_the_topics_that_the_document_says(service: str) -> None:
    assert taken_by(service) == {topic for topic, services in CONSUMERS.items() if service in services}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.topic)
def test_every_message_has_an_example_that_is_an_event_as_the_kit_reads_it(event: Any) -> None:
    examples = DOCUMENT["components"]["messages"][event.__name__]["examples"]
    for example in examples:
        payload = json.dumps(example["payload"]).encode()
        headers = tuple(example.get("headers", {}).items())
        read = decode(Message(event.topic, None, payload, headers), NOON)
        assert type(read.event) is event
    full = next(example for example in EXAMPLES if type(example) is event)
    assert event.model_validate(examples[0]["payload"]) == full
    assert len(examples) == (2 if event.owner == "gateway" else 1)


def test_examples_are_what_the_schemas_say() -> None:
    for message in DOCUMENT["components"]["messages"].values():
        described = resolve(message["headers"]["$ref"])
        path = message["payload"].get("$ref")
        payload = jsonschema.Draft202012Validator(json.loads((PROTO / path).read_text()) if path else {})
        for example in message["examples"]:
            payload.validate(example["payload"])
            jsonschema.Draft202012Validator(described).validate(example.get("headers", {}))
            assert set(example.get("headers", {})) <= set(described["properties"])
