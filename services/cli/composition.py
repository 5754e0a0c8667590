"""An event of a person's own making: from a file, from fields, or both."""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.cli.errors import CliError, Exit
from services.cli.input import read_bytes
from services.cli.validation import check, event_of

if TYPE_CHECKING:
    from services.kit.messaging.envelope import Message

SOURCE: Final = "millrace/cli"


def body_of(file: Path | None, fields: Sequence[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """CloudEvents attributes, and the event's content: what the file says, then each `name=value`.

    `recipe.epochs=3` goes inside. A value is JSON where it reads as JSON, and text otherwise. Raises CliError.
    """
    attributes: dict[str, str] = {}
    body = _object(read_bytes(file)) if file is not None else {}
    if "specversion" in body and isinstance(body.get("data"), dict):  # a structured CloudEvent
        attributes = {name: value for name, value in body.items() if isinstance(value, str)}
        body = body["data"]
    for field in fields:
        path, sign, text = field.partition("=")
        if not sign or not path:
            message, hint = f"{field} is not NAME=VALUE", "--field dataset=reviews"
            raise CliError(message, hint=hint, code="not_a_field", status=Exit.USAGE)
        _set(body, path.split("."), _value(text))
    return attributes, body


def message_of(topic: str, body: Mapping[str, Any], attributes: Mapping[str, str]) -> "Message":
    """The record: CloudEvents binary mode, with an id, a source and a trace of its own where none is given.

    Raises CliError for a body that is no event of this topic, and for one that no service would take.
    """
    from services.contracts.errors import MillraceError
    from services.kit.core.clock import SystemClock
    from services.kit.core.ids import SystemIds
    from services.kit.messaging.envelope import TRACE_HEADERS, Message, decode, encode

    event_of(topic)
    content, now = json.dumps(body).encode(), SystemClock().now()
    attributes = {
        "id": SystemIds().new("evt"),
        "source": SOURCE,
        "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
        **attributes,
        "specversion": "1.0",
    }
    headers = tuple((name if name in TRACE_HEADERS else f"ce_{name}", value) for name, value in attributes.items())
    try:
        envelope = decode(Message(topic, None, content, headers), now)
    except MillraceError as error:
        expected = next((one.hint for one in check(content, topic).problems if one.field == error.field), "")
        hint = expected or error.hint or f"millrace events schema {topic}"
        raise CliError(str(error), hint=hint, code=error.code) from error
    return encode(envelope)


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        hint = "millrace events validate FILE"
        raise CliError("the event is not JSON", hint=hint, code="not_json", status=Exit.USAGE) from error
    if not isinstance(body, dict):
        raise CliError("the event is not a JSON object", hint="{...}", code="not_json", status=Exit.USAGE)
    return body


def _set(body: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = body.setdefault(part, {})
        if not isinstance(inner, dict):
            message = f"{part} is not an object, so it has no field {path[-1]}"
            raise CliError(message, code="not_a_field", status=Exit.USAGE)
        body = inner
    body[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
