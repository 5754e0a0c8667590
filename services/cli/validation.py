"""Is this an event? Against the class that the services use, and against the JSON Schema that producers were given."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from services.cli.errors import CliError, Exit
from services.cli.examples import in_words, node_at, unknown_fields

if TYPE_CHECKING:
    from services.contracts.events import Event

EVENT: Final = "event"
SCHEMA: Final = "schema"
ENVELOPE: Final = "envelope"


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field, what to do, and who says so: the event class, the schema, or what wraps them."""

    field: str
    message: str
    hint: str
    by: str


@dataclass(frozen=True)
class Checked:
    """One event that was looked at."""

    line: int
    topic: str = ""
    key: str = ""
    id: str = ""
    """Of a structured CloudEvent; of plain JSON the id is made of key and content when it is received."""
    form: str = "plain"
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()
    """Fields that no consumer knows."""

    @property
    def valid(self) -> bool:
        return not self.problems

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "valid": self.valid}


def events_in(content: bytes) -> Iterator[tuple[int, bytes]]:
    """One event, or one a line (JSON Lines), each with its line counted from 1."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
        if len(lines) > 1 and lines[0][1].lstrip().startswith(b"{") and lines[0][1].rstrip().endswith(b"}"):
            yield from lines
            return
    yield 1, content


def check(content: bytes, topic: str, *, line: int = 1) -> Checked:
    """`topic` may be empty: a structured CloudEvent tells it by its type, a plain one by being of one shape only."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        last_line = "it is nested too deep" if isinstance(error, RecursionError) else f"it is not JSON: {error}"
        return _refused(line, topic, Problem("", last_line, "one JSON object, or one a line", ENVELOPE))
    if not isinstance(body, dict):
        return _refused(line, topic, Problem("", "it is not a JSON object", "{...}", ENVELOPE))
    structured = "specversion" in body and "data" in body
    data = body["data"] if structured else body
    event = _class_of(topic, str(body.get("type", "")) if structured else "", data)
    if event is None:
        hint = f"--topic with one of {', '.join(_topics())}"
        return _refused(
            line, topic, Problem("type" if structured else "", "it does not say which event it is", hint, ENVELOPE)
        )
    return _checked(content, data, event, line, "structured" if structured else "plain")


def _checked(content: bytes, data: Any, event: "type[Event]", line: int, form: str) -> Checked:
    from services.contracts.schemas import event_schema
    from services.kit.messaging.envelope import Message, id_of

    schema = event_schema(event)
    problems = list(_by_class(event, data, schema))
    if not problems:
        problems += _by_envelope(content, event)
    named = {problem.field for problem in problems}
    problems += [problem for problem in _by_schema(data, schema) if problem.field not in named]
    key = data.get(event.key_field, "") if isinstance(data, dict) else ""
    return Checked(
        line=line,
        topic=event.topic,
        key=str(key),
        id=id_of(Message(event.topic, None, content)) if form == "structured" else "",
        form=form,
        problems=tuple(problems),
        ignored=tuple(unknown_fields(data, schema, schema)),
    )


def _by_class(event: "type[Event]", data: Any, schema: dict[str, Any]) -> Iterator[Problem]:
    from pydantic import ValidationError

    try:
        event.model_validate_json(json.dumps(data))
    except ValidationError as refused:
        for error in refused.errors(include_url=False, include_input=False):
            path = [str(part) for part in error["loc"]]
            yield Problem(".".join(path), error["msg"], _hint(path, schema), EVENT)


def _by_schema(data: Any, schema: dict[str, Any]) -> Iterator[Problem]:
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(data):
        path = [str(part) for part in error.absolute_path]
        if error.validator == "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            for name in missing:
                yield Problem(".".join([*path, name]), "Field required", _hint([*path, name], schema), SCHEMA)
            continue
        yield Problem(".".join(path), error.message[:300], _hint(path, schema), SCHEMA)


def _by_envelope(content: bytes, event: "type[Event]") -> Iterator[Problem]:
    from services.contracts.errors import MillraceError
    from services.kit.core.clock import SystemClock
    from services.kit.messaging.envelope import Message, decode

    try:
        decode(Message(event.topic, None, content), SystemClock().now())
    except MillraceError as error:
        yield Problem(error.field or "", str(error), error.hint or "", ENVELOPE)


def _class_of(topic: str, kind: str, data: Any) -> "type[Event] | None":
    """Raises CliError for a topic that is none of ours."""
    from pydantic import ValidationError

    from services.contracts.events import EVENTS

    if topic:
        return event_of(topic)
    if kind:
        return next((event for event in EVENTS if kind in (event.type_name(), event.topic)), None)
    fitting = []
    for event in EVENTS:
        try:
            event.model_validate_json(json.dumps(data))
            fitting.append(event)
        except ValidationError:
            continue
    return fitting[0] if len(fitting) == 1 else None


def event_of(topic: str) -> "type[Event]":
    """Raises CliError for a topic that is none of ours."""
    from services.contracts.events import BY_TOPIC

    event = BY_TOPIC.get(topic)
    if event is None:
        message, hint = f"there is no topic {topic}", f"one of {', '.join(BY_TOPIC)}"
        raise CliError(message, hint=hint, code="unknown_topic", status=Exit.USAGE)
    return event


def _topics() -> list[str]:
    from services.contracts.events import BY_TOPIC

    return list(BY_TOPIC)


def _hint(path: list[str], schema: dict[str, Any]) -> str:
    node = node_at(path, schema)
    return in_words(node) if node is not None else ""


def _refused(line: int, topic: str, problem: Problem) -> Checked:
    return Checked(line=line, topic=topic, problems=(problem,))
