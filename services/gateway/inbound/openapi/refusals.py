"""The refusals of the REST door in `openapi.json`: which a route can give, and what each looks like."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from services.contracts.errors import BadField, InternalError, Malformed, MillraceError, TimedOut, Unauthenticated
from services.gateway.errors import (
    BodyTooLarge,
    DeploymentNotReady,
    ForeignHost,
    OutboxFull,
    ReplicaFull,
    ServiceSilent,
    SlowBody,
    UnknownDeployment,
    UnknownETag,
    UnsupportedMedia,
    VersionNotServed,
)
from services.gateway.inbound.http.answers import refused
from services.gateway.inbound.http.conditions import takes_condition
from services.gateway.inbound.http.routes import GATEWAY, INFERENCE, Route
from services.kit.core.idempotency import KeyReused
from services.kit.identity.auth import RoleTooWeak
from services.kit.storage.uploads import StoreFull, TooManyUploads

ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "stable, for programs"},
                "message": {"type": "string"},
                "field": {"type": ["string", "null"], "description": "the offending field"},
                "hint": {"type": ["string", "null"], "description": "what to do about it"},
                "retry_after_seconds": {"type": ["number", "null"]},
            },
        }
    },
}

OF_OTHERS: Final[Mapping[int, tuple[dict[str, str], ...]]] = {
    404: (
        {"code": "unknown_model", "message": "There is no model named news."},
        {"code": "unknown_run", "message": "There is no run run-1."},
    ),
    409: (
        {"code": "no_rollout", "message": "No rollout is under way on topics."},
        {"code": "run_has_ended", "message": "Run run-1 has succeeded already."},
    ),
    412: ({"code": "precondition_failed", "message": "topics is at generation 8, not at 7."},),
}
"""What the services behind the gateway refuse, in their words."""

_SAID: Final[Mapping[int, tuple[str, tuple[MillraceError, ...]]]] = {
    400: ("It cannot be read.", (Malformed(problem="the body is not JSON (unexpected end of data)", field="body"),)),
    401: ("No key, or one that is not known.", (Unauthenticated(),)),
    403: (
        "The key may not do that, or the request came by a foreign name.",
        (RoleTooWeak(role="viewer", needed="operator"), ForeignHost(host="evil.example")),
    ),
    404: (
        "There is nothing by that name.",
        (UnknownDeployment(deployment="news"), VersionNotServed(version=9, deployment="topics")),
    ),
    408: ("The body did not arrive in time.", (SlowBody(seconds=10.0, field="body"),)),
    409: ("The present state does not allow it; trying again will not help.", ()),
    412: ("The deployment has moved on since it was looked at.", (UnknownETag(tag='"g6-x"'),)),
    413: ("It is larger than the limit.", (BodyTooLarge(limit=1_048_576, field="body"),)),
    415: ("The media type is not one of ours.", (UnsupportedMedia(header="content-type", value="text/plain"),)),
    422: (
        "A field is not valid.",
        (BadField(name="texts[1]", problem="it is empty", field="texts[1]"), KeyReused()),
    ),
    429: (
        "A bounded queue is full.",
        (ReplicaFull(queued=64, retry_after_seconds=1.0), TooManyUploads(queued=4, retry_after_seconds=5.0)),
    ),
    500: ("An error of ours.", (InternalError(),)),
    503: (
        "A part that is needed does not answer now.",
        (
            DeploymentNotReady(deployment="topics", retry_after_seconds=1.0),
            ServiceSilent(service="registry", retry_after_seconds=1.0),
            OutboxFull(waiting=100_000, retry_after_seconds=10.0),
        ),
    ),
    504: ("The deadline passed.", (TimedOut(seconds=30.0),)),
    507: ("There is no room left for it.", (StoreFull(),)),
}
_RETRY_AFTER: Final = {
    "retry-after": {
        "description": "seconds until it is worth trying again",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def statuses(route: Route) -> list[int]:
    """The refusals that the route can give, as statuses."""
    found = {401, 403, 500, 503}
    if route.parameters or {"deployment", "addresses"}.intersection(route.request.fields_by_name.keys()):
        found |= {400, 404}
    if route.has_body:
        found |= {400, 408, 413, 415, 422}
    else:
        found |= {400, 422}
    if route.uploads:
        found |= {429, 507}
    if route.service is INFERENCE:
        found |= {429, 504}
    elif route.service is not GATEWAY:
        found |= {504}
        if route.has_body:
            found |= {409}
    if takes_condition(route.request):
        found |= {412}
    return sorted(found)


def references(found: Iterable[int]) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/Refused{status}"} for status in found}


def components() -> dict[str, Any]:
    """One response a status, with an example of each refusal that is common there."""
    return {f"Refused{status}": _response(status, *_SAID[status]) for status in sorted(_SAID)}


def _response(status: int, description: str, refusals: tuple[MillraceError, ...]) -> dict[str, Any]:
    examples = {refusal.code: {"value": orjson.loads(refused(refusal)[1])} for refusal in refusals}
    examples |= {told["code"]: {"value": {"error": told}} for told in OF_OTHERS.get(status, ())}
    schema = {"$ref": "#/components/schemas/Error"}
    response: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": schema, "examples": examples}},
    }
    if status in (429, 503, 504):
        response["headers"] = _RETRY_AFTER
    return response
