"""An event with what surrounds it, and its three wire forms.

CloudEvents binary mode (what Millrace sends), CloudEvents structured mode, and plain JSON without
any header (what a person with `kcat` sends). Source: CloudEvents 1.0.2, Kafka protocol binding 1.0.2.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, Protocol, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from services.contracts.errors import Invalid
from services.contracts.events import BY_TOPIC, Event
from services.contracts.names import DEFAULT_TENANT, EventId, Tenant, qualified_name

E_co = TypeVar("E_co", bound=Event, covariant=True)

MAX_EVENT_BYTES: Final = 900_000  # below Kafka's default of 1 MiB a message
TRACE_HEADERS: Final = ("traceparent", "tracestate")
_TENANT: Final[TypeAdapter[str]] = TypeAdapter(Tenant)
_EVENT_ID: Final[TypeAdapter[str]] = TypeAdapter(EventId)


class Undecodable(Invalid):
    """The message is not an event."""


class MalformedEvent(Undecodable):
    """The message on {topic} is not an event: {problem}."""

    hint = "'proto/events/{topic}.v1.json' is its JSON Schema"


class UnknownEventType(Undecodable):
    """{type} is not an event of the topic {topic}."""

    hint = "send {expected}, or leave ce_type out"


class EventRef(Protocol):
    """What an event is emitted because of: another event, or what was remembered of one."""

    @property
    def id(self) -> str: ...
    @property
    def correlation_id(self) -> str: ...
    @property
    def tenant(self) -> str: ...


@dataclass(frozen=True)
class StoredEventRef:
    """An event remembered by a timer or a job, without its content."""

    id: str
    correlation_id: str
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True)
class Envelope(Generic[E_co]):
    """An event, who said it and when, what caused it, and the story and trace it belongs to."""

    id: str
    event: E_co
    source: str
    time: datetime
    tenant: str = DEFAULT_TENANT
    causation: str = ""
    correlation: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    key: bytes | None = field(default=None, compare=False)
    """The record's key, byte for byte, of events whose key is the asker's choice; None leaves it to the event."""

    @property
    def correlation_id(self) -> str:
        """The correlation; an event from outside opens a story of its own."""
        return self.correlation or self.id


@dataclass(frozen=True)
class Message:
    """What goes over the wire: a record of a Kafka topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


def encode(envelope: Envelope[Event]) -> Message:
    """CloudEvents binary mode; the key is the envelope's, or else the place that must stay in order."""
    event = envelope.event
    headers = {
        "ce_specversion": "1.0",
        "ce_id": envelope.id,
        "ce_source": envelope.source,
        "ce_type": event.type_name(),
        "ce_subject": event.key,
        "ce_time": envelope.time.isoformat(),
        "ce_tenant": envelope.tenant,
        "ce_causationid": envelope.causation,
        "ce_correlationid": envelope.correlation_id,
        "content-type": "application/json",
        **envelope.trace,
    }
    return Message(
        topic=event.topic,
        key=qualified_name(envelope.tenant, event.key).encode() if envelope.key is None else envelope.key,
        value=event.model_dump_json().encode(),
        headers=tuple((name, value) for name, value in headers.items() if value),
    )


def decode(message: Message, received_at: datetime) -> Envelope[Event]:
    """Any of the three wire forms.

    A message without an id gets one made from its content, so that a redelivery is recognised.
    Raises MalformedEvent or UnknownEventType; both name the field.
    """
    expected = BY_TOPIC.get(message.topic)
    if expected is None:
        raise MalformedEvent(topic=message.topic, problem="no event belongs to this topic")
    attributes, data = _opened(message, _json(message))
    kind = attributes.get("type", expected.type_name())
    if kind not in (expected.type_name(), expected.topic):
        raise UnknownEventType(type=kind[:100], topic=message.topic, expected=expected.type_name(), field="type")
    return Envelope(
        id=_event_id(attributes, message),
        event=_event(expected, data),
        source=attributes.get("source", "external")[:200],
        time=_time(attributes.get("time"), received_at),
        tenant=_tenant(attributes.get("tenant", DEFAULT_TENANT), message.topic),
        causation=attributes.get("causationid", "")[:200],
        correlation=attributes.get("correlationid", "")[:200],
        trace=_trace(message, attributes),
        key=message.key if expected.free_key else None,
    )


def id_of(message: Message) -> str:
    """The id by which inboxes know the message, whether or not it can be decoded; empty where it has no valid one."""
    try:
        return _event_id(attributes_of(message), message)
    except MalformedEvent:
        return ""


def tenant_of(message: Message) -> str:
    """Whose event it is, or would be if the rest of it were one. Raises MalformedEvent."""
    return _tenant(attributes_of(message).get("tenant", DEFAULT_TENANT), message.topic)


def attributes_of(message: Message) -> dict[str, str]:
    """The CloudEvents attributes, from the headers or from the body; a message that is malformed may have some too."""
    try:
        return _opened(message, _json(message))[0]
    except MalformedEvent:
        return _opened(message, {})[0]


def tenant_or_default(message: Message) -> str:
    """Whose event it is; the default tenant's where it names no valid one."""
    try:
        return tenant_of(message)
    except MalformedEvent:
        return DEFAULT_TENANT


def _opened(message: Message, body: dict[str, Any]) -> tuple[dict[str, str], object]:
    """The CloudEvents attributes and the event's own content, whichever form they came in."""
    attributes = {name.removeprefix("ce_"): value for name, value in message.headers if name.startswith("ce_")}
    if "specversion" not in attributes and "specversion" in body and "data" in body:
        return {name: value for name, value in body.items() if name != "data" and isinstance(value, str)}, body["data"]
    return attributes, body


def _json(message: Message) -> dict[str, Any]:
    if not message.value:
        raise MalformedEvent(topic=message.topic, problem="it is empty")
    if len(message.value) > MAX_EVENT_BYTES:
        raise MalformedEvent(topic=message.topic, problem=f"it is larger than {MAX_EVENT_BYTES} bytes")
    try:
        data = orjson.loads(message.value)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent(topic=message.topic, problem="it is not JSON") from error
    if not isinstance(data, dict):
        raise MalformedEvent(topic=message.topic, problem="it is not a JSON object")
    return data


def _event(expected: type[Event], data: object) -> Event:
    try:
        content = orjson.dumps(data)
    except orjson.JSONEncodeError as error:  # it reads deeper nesting than it writes
        raise MalformedEvent(topic=expected.topic, problem="it is nested too deep") from error
    try:
        return expected.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise MalformedEvent(topic=expected.topic, problem=problem[:500], field=where or None) from error


def _event_id(attributes: Mapping[str, str], message: Message) -> str:
    if "id" not in attributes:
        if "specversion" in attributes:
            raise MalformedEvent(topic=message.topic, problem="id is missing", field="id")
        return "sha256-" + hashlib.sha256((message.key or b"") + b"\n" + (message.value or b"")).hexdigest()
    try:
        chosen = _EVENT_ID.validate_python(attributes["id"])
    except ValidationError as error:
        raise MalformedEvent(topic=message.topic, problem="id must have 1 to 200 characters", field="id") from error
    if not chosen.isprintable():
        raise MalformedEvent(topic=message.topic, problem="id holds characters that cannot be printed", field="id")
    return chosen


def _tenant(name: str, topic: str) -> str:
    try:
        return _TENANT.validate_python(name)
    except ValidationError as error:
        raise MalformedEvent(topic=topic, problem="tenant is not a name", field="tenant") from error


def _time(text: str | None, received_at: datetime) -> datetime:
    """In UTC. A time that cannot be read, or that no calendar holds in UTC, is replaced by the receiver's."""
    try:
        stamp = datetime.fromisoformat(text) if text else received_at
        return stamp.astimezone(UTC) if stamp.tzinfo else stamp.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return received_at


def _trace(message: Message, attributes: Mapping[str, str]) -> dict[str, str]:
    headers = {name: message.header(name) or attributes.get(name, "") for name in TRACE_HEADERS}
    return {name: value for name, value in headers.items() if value}
