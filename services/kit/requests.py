"""What every gRPC door reads from a request the same way: who calls, the size of a page, a change's reason and key."""

from typing import Any, Final

from google.protobuf.message import Message

from services.contracts.errors import Invalid, Unauthenticated
from services.kit.auth import Principal, present_principal
from services.kit.once import FIELD, Once, once

DEFAULT_PAGE: Final = 50
LARGEST_PAGE: Final = 200
MAX_REASON: Final = 500


class ReasonTooLong(Invalid):
    """The reason is longer than {limit} characters."""

    field = "reason"


class ReasonUnprintable(Invalid):
    """The reason holds characters that cannot be printed."""

    field = "reason"


def caller() -> Principal:
    """Whom the door let in. Raises Unauthenticated where no door did."""
    principal = present_principal.get()
    if principal is None:
        raise Unauthenticated
    return principal


def page_size(asked: int) -> int:
    """What was asked for, within the limit; 0 asks for the default."""
    return min(asked or DEFAULT_PAGE, LARGEST_PAGE)


def read_reason(text: str) -> str:
    """The reason that the history keeps. Raises ReasonTooLong or ReasonUnprintable."""
    if len(text) > MAX_REASON:
        raise ReasonTooLong(limit=MAX_REASON)
    if "\0" in text:  # PostgreSQL stores none
        raise ReasonUnprintable
    return text or "no reason given"


def asked_once(method: str, request: Message, context: Any) -> Once | None:
    """The idempotency key in the call's metadata, bound to this method and request; None without one. Raises BadKey."""
    sent = {str(name): value for name, value in context.invocation_metadata() or ()}
    asked = method.encode(), request.SerializeToString(deterministic=True)
    return once(caller().tenant, str(sent.get(FIELD, "")), *asked)
