"""What every gRPC door reads from a request the same way: who calls, pages, filters, a change's reason and key."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.contracts.errors import Invalid, Unauthenticated
from services.kit.core.idempotency import FIELD, IdempotencyKey, bind_key
from services.kit.identity.auth import Principal, current_principal

DEFAULT_PAGE: Final = 50
LARGEST_PAGE: Final = 200
MAX_REASON: Final = 500
MAX_FILTER: Final = 100
LARGEST_NUMBER: Final = 2**31 - 1

S = TypeVar("S", bound=StrEnum)


class ReasonTooLong(Invalid):
    """The reason is longer than {limit} characters."""

    field = "reason"


class ReasonUnprintable(Invalid):
    """The reason holds characters that cannot be printed."""

    field = "reason"


def caller() -> Principal:
    """Whom the door let in. Raises Unauthenticated where no door did."""
    principal = current_principal.get()
    if principal is None:
        raise Unauthenticated
    return principal


def page_size(requested: int) -> int:
    """What was asked for, within the limit; 0 asks for the default."""
    return min(requested or DEFAULT_PAGE, LARGEST_PAGE)


def read_reason(text: str) -> str:
    """The reason that the history keeps. Raises ReasonTooLong or ReasonUnprintable."""
    if len(text) > MAX_REASON:
        raise ReasonTooLong(limit=MAX_REASON)
    if "\0" in text:  # PostgreSQL stores none
        raise ReasonUnprintable
    return text or "no reason given"


class FilterUnknown(Invalid):
    """The filter {name} knows no '{value}'."""

    hint = "it is one of: {known}"


class FilterTooLong(Invalid):
    """The filter {name} is longer than {limit} characters, or holds what cannot be printed."""


class InvalidTimestamp(Invalid):
    """The time {name} is not valid."""

    hint = "RFC 3339 between the years 1 and 9999, such as 2026-11-25T10:00:00Z"


def one_of(kind: type[S], text: str, name: str) -> S | None:
    """The member that the filter names, None without one. Raises FilterUnknown."""
    if not text:
        return None
    try:
        return kind(text)
    except ValueError as error:
        known = ", ".join(kind)
        raise FilterUnknown(name=name, value=text[:MAX_FILTER], known=known, field=name) from error


def within_column(number: int) -> int:
    """A uint32 as databases compare it: numbers of rows end before 2**31, so a greater one finds what that would."""
    return min(number, LARGEST_NUMBER)


def read_filter(text: str, name: str) -> str:
    """A filter that is compared as it is. Raises FilterTooLong."""
    if len(text) > MAX_FILTER or not text.isprintable():
        raise FilterTooLong(name=name, limit=MAX_FILTER, field=name)
    return text


def read_timestamp(request: Message, name: str) -> datetime | None:
    """The Timestamp field of that name, in UTC; None where it is unset. Raises InvalidTimestamp."""
    if not request.HasField(name):
        return None
    try:
        timestamp_utc: datetime = getattr(request, name).ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidTimestamp(name=name, field=name) from error
    return timestamp_utc


def read_idempotency_key(method: str, request: Message, context: Any) -> IdempotencyKey | None:
    """The idempotency key in the call's metadata, bound to this method and request; None without one. Raises BadKey."""
    sent = {str(name): value for name, value in context.invocation_metadata() or ()}
    requested = method.encode(), request.SerializeToString(deterministic=True)
    return bind_key(caller().tenant, str(sent.get(FIELD, "")), *requested)


def timestamp(timestamp_utc: datetime | None) -> Timestamp | None:
    """The moment as the wire has it; an unset field for none."""
    if timestamp_utc is None:
        return None
    made = Timestamp()
    made.FromDatetime(timestamp_utc)
    return made
