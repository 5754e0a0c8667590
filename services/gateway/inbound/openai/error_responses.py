"""The errors of `/v1` in `openapi.json`, in OpenAI's shape."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from services.contracts.errors import BadField, InternalError, MillraceError, TimedOut, Unauthenticated
from services.contracts.tasks.errors import ContextLengthExceeded
from services.gateway.errors import (
    BodyTooLarge,
    DeploymentNotReady,
    ForeignHost,
    ModelNotFound,
    ReplicaFull,
    SlowBody,
    TokensNotText,
    UnsupportedMedia,
)
from services.gateway.inbound.http.error_table import ErrorTable
from services.gateway.inbound.openai.models import OpenAIError
from services.gateway.inbound.openai.responses import refused
from services.kit.identity.auth import RoleTooWeak

_EXAMPLES: Final[Mapping[int, tuple[str, tuple[MillraceError, ...]]]] = {
    400: (
        "The request is not valid.",
        (
            BadField(name="input[1]", problem="it is empty", field="input[1]"),
            ContextLengthExceeded(limit=10_000, unit="characters", field="input[0]"),
            TokensNotText(),
        ),
    ),
    401: ("No key, or one that is not known.", (Unauthenticated(),)),
    403: ("The key may not do that.", (RoleTooWeak(role="viewer", needed="client"), ForeignHost(host="evil.example"))),
    404: ("There is no such model.", (ModelNotFound(model="text-embedding-3-small"),)),
    408: ("The body did not arrive in time.", (SlowBody(seconds=10.0, field="body"),)),
    413: ("The body is too large.", (BodyTooLarge(limit=8_388_608, field="body"),)),
    415: ("The body is no JSON.", (UnsupportedMedia(header="content-type", value="text/plain", field="content-type"),)),
    429: ("Too much at once.", (ReplicaFull(queued=64, retry_after_seconds=1.0),)),
    500: ("An error of ours.", (InternalError(),)),
    503: ("Nothing serves the model now.", (DeploymentNotReady(deployment="topics", retry_after_seconds=1.0),)),
    504: ("The deadline passed.", (TimedOut(seconds=30.0),)),
}


def _rendered(error: MillraceError) -> Any:
    return orjson.loads(refused(error)[1])


ERRORS: Final = ErrorTable("OpenAI", OpenAIError, _EXAMPLES, _rendered)
