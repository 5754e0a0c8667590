"""What clients may ask for, and the limits of it. Pure."""

import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from services.contracts.errors import BadField, Malformed, MillraceError, Relayed
from services.contracts.names import Identifier, Name
from services.contracts.tasks.records import Source
from services.contracts.tasks.registry import AnyTask
from services.contracts.tasks.stream import Result
from services.contracts.tasks.vectors import Embedding

MAX_STICKY_KEY_CHARS: Final = 200

_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)
_IDENTIFIER: Final[TypeAdapter[str]] = TypeAdapter(Identifier)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, within which tenant, and the key that makes asking twice harmless (or nothing)."""

    tenant: str
    idempotency_key: str = ""
    actor: str = "gateway"
    """The role and the id of the key, as the history names them."""


@dataclass(frozen=True, slots=True)
class Predict:
    """A request of any task, whatever protocol it came by. `deadline` is a moment of the monotonic clock."""

    tenant: str
    deployment: str
    task: AnyTask
    request: Any
    """As its task has it."""
    request_id: str
    deadline: float
    payload: bytes | None = None
    """The request as its client has encoded it, to be passed on as it is; None where it came in another form."""
    sticky_key: str = ""
    version: int = 0
    """Which of the served versions answers; 0 leaves it to the weights."""
    source: Source = Source.LIVE

    def encoded(self) -> bytes:
        return self.task.encode(self.request) if self.payload is None else self.payload


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica answered, still encoded: not every protocol needs it open."""

    request_id: str
    deployment: str
    task: AnyTask
    payload: bytes
    model: str
    version: int
    tokens: int

    def result(self) -> Any:
        """As the task has it; decoded anew with each call."""
        return self.task.decode_result(self.payload)


def answer_of(command: Predict, result: Result) -> Answer:
    return Answer(
        request_id=command.request_id,
        deployment=command.deployment,
        task=command.task,
        payload=result.payload,
        model=result.model,
        version=result.version,
        tokens=result.tokens,
    )


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embeddings of many texts, in their order, all by one version."""

    deployment: str
    version: int
    embeddings: tuple[Embedding, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event is on disk and will have its effect once."""

    event_id: str
    trace_id: str


def moved(error: MillraceError, *, by: int) -> MillraceError:
    """The same refusal, where it names a text of a chunk that begins `by` texts into the request."""
    body = error.body()
    hit = re.fullmatch(r"texts\[(\d+)\]", body.field or "")
    if not by or hit is None:
        return error
    return Relayed(error.kind, body.model_copy(update={"field": f"texts[{int(hit[1]) + by}]"}))


def check_sticky_key(key: str) -> None:
    _check_short(key, "sticky_key", MAX_STICKY_KEY_CHARS)


def check_request_id(request: str) -> None:
    """Raises BadField unless it has the shape of an identifier."""
    try:
        _IDENTIFIER.validate_python(request)
    except ValidationError as error:
        raise bad_field(error, "request_id") from error


def check_name(name: str, at: str) -> None:
    """Raises Malformed unless it is a name; so nothing else reaches a path, a topic key or another service."""
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        problem = "a name has lower-case letters, digits, '.', '-' and '_', at most 63 of them"
        raise Malformed(problem=problem, field=at) from error


def check_identifier(identifier: str, at: str) -> None:
    """Raises Malformed unless it has the shape of an identifier."""
    try:
        _IDENTIFIER.validate_python(identifier)
    except ValidationError as error:
        problem = "an identifier has letters, digits, '.', '_', ':' and '-', at most 128 of them"
        raise Malformed(problem=problem, field=at) from error


def bad_field(error: ValidationError, field: str = "") -> MillraceError:
    """The first problem that pydantic found, in our own shape."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(map(str, first["loc"])) or field
    return BadField(name=name, problem=first["msg"], field=name)


def _check_short(value: str, field: str, limit: int) -> None:
    if len(value) > limit:
        raise BadField(name=field, problem=f"it has more than {limit} characters", field=field)
    if not value.isprintable():
        raise Malformed(problem="it holds control characters", field=field)
