"""The errors of `/v2` in `openapi.json`: the protocol has one string for all of an error."""

from collections.abc import Mapping
from typing import Any, Final

from services.contracts.errors import BadField, InternalError, MillraceError, TimedOut, Unauthenticated
from services.gateway.errors import (
    BodyTooLarge,
    DeploymentNotReady,
    NothingToLoad,
    ReplicaFull,
    SlowBody,
    UnknownDeployment,
    UnsupportedMedia,
)
from services.gateway.inbound.http.error_table import ErrorTable
from services.gateway.inbound.oip.infer import words
from services.gateway.inbound.oip.wire_models import OpenInferenceError
from services.kit.identity.auth import RoleTooWeak

_EXAMPLES: Final[Mapping[int, tuple[str, tuple[MillraceError, ...]]]] = {
    400: (
        "The request is not valid.",
        (BadField(name="inputs[0].shape", problem="it is not [N]", field="shape"),),
    ),
    401: ("No key, or one that is not known.", (Unauthenticated(),)),
    403: (
        "The key may not do that.",
        (RoleTooWeak(role="viewer", needed="client"),),
    ),
    404: ("There is no such model or version.", (UnknownDeployment(deployment="news"),)),
    408: ("The body did not arrive in time.", (SlowBody(seconds=10.0, field="body"),)),
    409: ("The present state does not allow it.", (NothingToLoad(model="topics"),)),
    413: ("The body is too large.", (BodyTooLarge(limit=1_048_576, field="body"),)),
    415: ("The media type is not one of the protocol's.", (UnsupportedMedia(header="content-type", value="text/csv"),)),
    429: ("A bounded queue is full.", (ReplicaFull(queued=64, retry_after_seconds=1.0),)),
    500: ("An error of ours.", (InternalError(),)),
    503: (
        "A part that is needed is away.",
        (DeploymentNotReady(deployment="topics", retry_after_seconds=1.0),),
    ),
    504: ("The deadline passed.", (TimedOut(seconds=30.0),)),
}


def _rendered(error: MillraceError) -> Any:
    return {"error": words(error)}


ERRORS: Final = ErrorTable("OpenInference", OpenInferenceError, _EXAMPLES, _rendered)
