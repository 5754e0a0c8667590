"""The AsyncAPI 3.0 document of all topics, made from the event classes.

Payloads are not repeated: each message refers to its JSON Schema in `proto/events/`. Who consumes a topic stands in
`services/contracts/consumers.py`.
"""

import json
from typing import Any, Final, TypeAlias

from services.contracts.consumers import CONSUMERS
from services.contracts.events import EVENTS, Event
from services.kit.messaging.envelope import Envelope, Message, encode
from tests.contracts.examples import EXAMPLES, NOON

Document: TypeAlias = dict[str, Any]

KEYS: Final[dict[str, str]] = {
    "inference.requested": "the producer's own choice; the answer's record has the same",
    "inference.completed": "the key of the request's record, byte for byte; the event's `request` where it had none",
}
"""Where the record's key is not simply the event's field."""

RETENTION_EVER: Final = -1

HEADERS: Final[Document] = {
    "type": "object",
    "description": "CloudEvents 1.0, binary mode. A producer outside may leave all of them out and send plain JSON.",
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {"type": "string", "description": "unique; an event seen before has no second effect"},
        "ce_source": {"type": "string", "description": "/millrace/<service>, or the producer's own"},
        "ce_type": {"type": "string", "description": "millrace.<topic>.v<version>"},
        "ce_subject": {"type": "string", "description": "the name that the event is about; as a rule the record's key"},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_tenant": {"type": "string", "default": "default"},
        "ce_causationid": {"type": "string", "description": "id of the event that caused this one"},
        "ce_correlationid": {"type": "string", "description": "the story that this event belongs to"},
        "content-type": {"type": "string", "const": "application/json"},
        "traceparent": {"type": "string", "description": "W3C trace context"},
        "tracestate": {"type": "string"},
    },
}

REDELIVERED: Final[Document] = {
    "redelivery-of": {"type": "string", "description": "the dead letter that was sent again: topic/partition/offset"},
    "redelivery-first-at": {"type": "string", "format": "date-time", "description": "when it was first given up"},
}

DEAD_HEADERS: Final[Document] = {
    "type": "object",
    "description": "The original headers, and why the record is here.",
    "properties": {
        "dlq-topic": {"type": "string", "description": "where the record came from"},
        "dlq-code": {"type": "string", "description": "stable, for programs"},
        "dlq-reason": {"type": "string", "description": "for people"},
        "dlq-tries": {"type": "string", "description": "how often it was tried; 0 when it could not be read"},
        "dlq-at": {"type": "string", "format": "date-time"},
        "dlq-by": {"type": "string", "description": "the service that gave it up"},
        "dlq-cut": {"type": "string", "description": "the size it had, where it was cut to fit; headers are left out"},
        "dlq-tenant": {"type": "string", "description": "the tenant that the event belongs to"},
        "dlq-redelivered": {
            "type": "string",
            "description": "no letter, but a marker: who redelivered the letter that dlq-letter names",
        },
        "dlq-letter": {"type": "string", "description": "of a marker: topic/partition/offset of its letter"},
        "dlq-redelivered-as": {"type": "string", "description": "of a marker: the id of the event that was sent"},
    },
}


def _may_be_redelivered(headers: Document) -> Document:
    return {**headers, "properties": {**headers["properties"], **REDELIVERED}}


PLAIN_FIELDS: Final = {"feedback.received": ("label",), "inference.requested": ("texts",)}
"""Of events that people write by hand: fields that none of them must have, and each of them needs one of."""


def identifier(topic: str) -> str:
    """A topic's name as a component key: `dataset.ready` is `datasetReady`."""
    first, *rest = topic.split(".")
    return first + "".join(part.capitalize() for part in rest)


def summary(event: type[Event]) -> str:
    return (event.__doc__ or "").strip().splitlines()[0]


def key(event: type[Event]) -> str:
    return KEYS.get(event.topic, f"the event's `{event.key_field}`")


def channel(event: type[Event]) -> Document:
    policy: Document = {"cleanup.policy": ["compact" if event.compacted else "delete"]}
    if event.topic == "registry.history":
        policy["retention.ms"] = RETENTION_EVER
    return {
        "address": event.topic,
        "title": event.topic,
        "description": f"{summary(event)} The record's key is {KEYS.get(event.topic, f'`{event.key_field}`')}.",
        "messages": {event.__name__: {"$ref": f"#/components/messages/{event.__name__}"}},
        "bindings": {"kafka": {"topicConfiguration": policy, "bindingVersion": "0.5.0"}},
    }


def dead_letters(event: type[Event]) -> Document:
    return {
        "address": f"{event.topic}.dlq",
        "title": f"{event.topic}.dlq",
        "description": f"Records of `{event.topic}` that could not be handled: original bytes, key and headers.",
        "messages": {"DeadLetter": {"$ref": "#/components/messages/DeadLetter"}},
    }


def sent(example: Event) -> Message:
    """The record that the owner of the event would send."""
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    envelope = Envelope(
        id="evt-01k9rm4z7q8w2e5t6y3v0x1c9b",
        event=example,
        source=f"/millrace/{example.owner}",
        time=NOON,
        causation="evt-01k9rm4x0a1s2d3f4g5h6j7k8m",
        correlation="evt-01k9rm4w9z8x7c6v5b4n3m2a1s",
        trace=trace,
    )
    return encode(envelope)


def examples(event: type[Event]) -> list[Document]:
    """Every field set, as the kit sends it; of what outsiders may send also the least that will do, without headers."""
    full = next(example for example in EXAMPLES if type(example) is event)
    record = sent(full)
    payload = json.loads(record.value or b"{}")
    examples = [{"name": "full", "summary": "Every field set.", "headers": dict(record.headers), "payload": payload}]
    if event.owner == "gateway":
        schema = event.model_json_schema(mode="validation")
        least = {name: payload[name] for name in (*schema["required"], *PLAIN_FIELDS.get(event.topic, ()))}
        examples.append(
            {"name": "plain", "summary": "Plain JSON from a producer outside, no headers.", "payload": least}
        )
    return examples


def message(event: type[Event]) -> Document:
    return {
        "name": event.__name__,
        "title": event.type_name(),
        "summary": summary(event),
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/CloudEventHeaders"},
        "payload": {"$ref": f"./events/{event.topic}.v{event.schema_version}.json"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": key(event)},
                "bindingVersion": "0.5.0",
            }
        },
        "examples": examples(event),
    }


def dead_letter() -> Document:
    headers = {
        "dlq-topic": "dataset.ready",
        "dlq-code": "malformed_event",
        "dlq-reason": "The message on dataset.ready is not an event: it is not JSON.",
        "dlq-tries": "0",
        "dlq-at": "2026-11-03T12:00:00.250000+00:00",
    }
    return {
        "name": "DeadLetter",
        "title": "a dead letter",
        "summary": "A record as it came, whatever it was.",
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        "payload": {},
        "examples": [{"name": "unreadable", "headers": headers, "payload": "{not json"}],
    }


def operations(event: type[Event]) -> Document:
    """One `send` for the owner and one `receive` for each consumer, tagged with the service."""
    name = identifier(event.topic)
    parties = [(event.owner, "send"), *((service, "receive") for service in CONSUMERS[event.topic])]
    return {
        f"{service}.{action}.{name}": {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "title": f"{service} {action}s {event.topic}",
            "tags": [{"name": service}],
            "messages": [{"$ref": f"#/channels/{name}/messages/{event.__name__}"}],
        }
        for service, action in parties
    }


def document(version: str) -> Document:
    """The whole document; `version` is the product's."""
    channels: Document = {}
    for event in EVENTS:
        channels[identifier(event.topic)] = channel(event)
        channels[f"{identifier(event.topic)}Dlq"] = dead_letters(event)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Millrace",
            "version": version,
            "description": "One topic a fact. Consumers ignore unknown fields; a breaking change is a new version.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "KAFKA_BOOTSTRAP_SERVERS, or what `millrace status` shows for the embedded default",
                "variables": {"bootstrap": {"default": "localhost:9092"}},
            }
        },
        "channels": channels,
        "operations": {name: operation for event in EVENTS for name, operation in operations(event).items()},
        "components": {
            "messages": {
                **{event.__name__: message(event) for event in EVENTS},
                "DeadLetter": dead_letter(),
            },
            "schemas": {
                "CloudEventHeaders": _may_be_redelivered(HEADERS),
                "DeadLetterHeaders": _may_be_redelivered(DEAD_HEADERS),
            },
        },
    }
