"""The errors of REST in `openapi.json`: by status, what it means and what is common there."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel

from services.contracts.errors import (
    BadField,
    ErrorBody,
    InternalError,
    Malformed,
    MillraceError,
    TimedOut,
    Unauthenticated,
)
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
from services.gateway.inbound.http.error_table import ErrorTable
from services.gateway.inbound.http.responses import refused
from services.kit.core.idempotency import KeyReused
from services.kit.identity.auth import RoleTooWeak
from services.kit.storage.uploads import StoreFull, TooManyUploads


class ErrorResponse(BaseModel):
    """The one shape of an error: what is wrong, where, and what to do about it."""

    error: ErrorBody


OF_OTHERS: Final[Mapping[int, tuple[ErrorBody, ...]]] = {
    404: (
        ErrorBody(code="unknown_model", message="There is no model named news."),
        ErrorBody(code="unknown_run", message="There is no run run-1."),
    ),
    409: (
        ErrorBody(code="no_rollout", message="No rollout is under way on topics."),
        ErrorBody(code="run_has_ended", message="Run run-1 has succeeded already."),
    ),
    412: (ErrorBody(code="precondition_failed", message="topics is at generation 8, not at 7."),),
}
"""What the services behind the gateway refuse, in their words."""

_EXAMPLES: Final[Mapping[int, tuple[str, tuple[MillraceError, ...]]]] = {
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


def _rendered(error: MillraceError) -> Any:
    return orjson.loads(refused(error)[1])


ERRORS: Final = ErrorTable("", ErrorResponse, _EXAMPLES, _rendered, OF_OTHERS)
