"""A refusal as the clients of OpenAI's API know it: `{"error": {"message", "type", "param", "code"}}`.

Their SDK makes an exception class of the status, and tries 408, 409, 429 and 5xx again unless `x-should-retry` says
not to. Source: openai-python 2.54, `_base_client.py` and `_exceptions.py`.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from services.contracts.errors import ErrorBody, Kind, MillraceError
from services.gateway.errors import BodyTooLarge, MethodNotAllowed, SlowBody
from services.gateway.inbound.http.responses import CLOSING
from services.kit.transport.http import JSON, STATUS, Header

_BAD_REQUEST: Final = (Kind.INVALID, Kind.TOO_LARGE)
_BAD_REQUEST_CODES: Final = frozenset({"task_not_served"})
"""A replica says it, whose kind would be the media type's."""
_AGAIN: Final = (408, 429)
"""Of the statuses below 500, those that pass by themselves."""

CODES: Final[Mapping[str, str]] = {
    "bad_field": "invalid_value",
    "malformed": "invalid_request",
    "method_not_allowed": "method_not_supported",
    "prompt_too_long": "context_length_exceeded",
    "role_too_weak": "insufficient_permissions",
    "unauthenticated": "invalid_api_key",
    "unknown_route": "unknown_url",
}
"""Our codes that this API has a word of its own for."""

WORDS: Final[Mapping[str, str]] = {"unauthenticated": "Incorrect API key provided, or none."}
"""Messages of OpenAI's that clients look for: without this one LiteLLM takes a 401 for a bad request."""


def status_of(error: MillraceError) -> int:
    for kind, status in ((BodyTooLarge, 413), (MethodNotAllowed, 405), (SlowBody, 408)):
        if isinstance(error, kind):
            return status
    return 400 if error.kind in _BAD_REQUEST or error.code in _BAD_REQUEST_CODES else STATUS[error.kind]


def refused(error: MillraceError) -> tuple[int, bytes, list[Header]]:
    """Status, body and headers."""
    status, body = status_of(error), error.body()
    shown = {
        "message": _message(body),
        "type": _type(status),
        "param": _param(body.field),
        "code": "rate_limit_exceeded" if status == 429 else CODES.get(body.code, body.code),
    }
    headers: list[Header] = [JSON]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retryable:
        seconds = body.retry_after_seconds or 1.0
        headers.append((b"retry-after", str(max(1, round(seconds))).encode()))
        headers.append((b"retry-after-ms", str(round(seconds * 1000)).encode()))
    elif status < 500 and status not in _AGAIN:
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", str(error.details["allowed"]).encode()))
    if isinstance(error, CLOSING):
        headers.append((b"connection", b"close"))
    return status, orjson.dumps({"error": shown}), headers


def _message(body: ErrorBody) -> str:
    """There is no place for a hint of its own."""
    message = WORDS.get(body.code, body.message).replace("'texts", "'input")
    return f"{message} {body.hint[0].upper()}{body.hint[1:]}." if body.hint else message


def _type(status: int) -> str:
    if status == 429:
        return "requests"
    return "server_error" if status >= 500 else "invalid_request_error"


def _param(field: str | None) -> str | None:
    """What a replica calls `texts[3]` is `input[3]` here; the rest of a request is no parameter."""
    if field is None or field in ("authorization", "body", "host", "origin", "path"):
        return None
    return f"input{field.removeprefix('texts')}" if field.startswith("texts") else field
