"""The errors of Millrace, in one tree. The docstring of an error is its message.

MillraceError
├── Invalid            the caller must change what was sent
│   ├── Malformed      it cannot be read
│   └── BadField       one field of it is wrong
├── Unauthenticated    no key, or one that is not known
├── Forbidden          a key that may not do this
├── NotFound
├── Conflict           the state does not allow it (never retried by clients)
├── Stale              it is no longer in the state that the caller named
├── TooLarge
├── Unsupported        the media type, format or operation is not one of ours
├── Overloaded         a bounded queue is full; retry later
├── Unavailable        a part that is needed does not answer; retry later
├── TimedOut
└── InternalError      an error of ours, which tells nothing of the inside

A service derives its own errors from these in its `errors.py`. Each transport maps `kind` once
(`kit/transport/http.py`, `kit/transport/rpc.py`); nothing here knows a status code.
"""

import re
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

RETRY_AFTER_SECONDS: Final = 1.0
"""Where a refusal that may pass by itself does not say when."""


class Kind(StrEnum):
    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    STALE = "stale"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    INTERNAL = "internal"


class ErrorBody(BaseModel):
    """The one shape of an error on every door: what, which field, and what to do about it."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    field: str | None = None
    hint: str | None = None
    retry_after_seconds: float | None = None


class MillraceError(Exception):
    """The request was refused."""

    kind: Kind = Kind.INTERNAL
    hint: str | None = None
    field: str | None = None
    retryable: bool = False

    def __init__(self, *, field: str | None = None, hint: str | None = None, **details: object) -> None:
        """`details` fill the docstring and the hint; `field` names the offending field, `hint` says what to do.

        Both replace what the class says of itself.
        """
        self.details = details
        self.field = field if field is not None else self.field
        template = hint if hint is not None else self.hint
        self.hint = template.format(**details) if template is not None else None
        summary = (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(summary.format(**details))

    @property
    def code(self) -> str:
        """The class's name in snake case, stable for programs: `UnknownModel` is `unknown_model`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def retry_after(self) -> float | None:
        """Seconds after which to try again: every refusal that may pass by itself says some; None where it will not."""
        seconds = self.body().retry_after_seconds
        return RETRY_AFTER_SECONDS if seconds is None and self.retryable else seconds

    def body(self) -> ErrorBody:
        retry = self.details.get("retry_after_seconds")
        return ErrorBody(
            code=self.code,
            message=str(self),
            field=self.field,
            hint=self.hint,
            retry_after_seconds=float(retry) if isinstance(retry, int | float) else None,
        )


class InternalError(MillraceError):
    """Something went wrong inside."""

    hint = "the service's log has the trace"


class Invalid(MillraceError):
    """The request is not valid: {problem}."""

    kind = Kind.INVALID


class Malformed(Invalid):
    """The request cannot be read: {problem}."""


class BadField(Invalid):
    """The field '{name}' is not valid: {problem}."""


class Unauthenticated(MillraceError):
    """A valid API key is needed."""

    kind = Kind.UNAUTHENTICATED
    hint = "send it as 'Authorization: Bearer KEY'; 'millrace status' shows the file that holds yours"


class Forbidden(MillraceError):
    """This key may not do that."""

    kind = Kind.FORBIDDEN


class NotFound(MillraceError):
    """There is nothing here by that name."""

    kind = Kind.NOT_FOUND


class Conflict(MillraceError):
    """The present state does not allow that."""

    kind = Kind.CONFLICT


class Stale(MillraceError):
    """It has changed since it was looked at."""

    kind = Kind.STALE
    hint = "look again, and decide anew"


class TooLarge(MillraceError):
    """{what} is larger than the limit of {limit}."""

    kind = Kind.TOO_LARGE


class Unsupported(MillraceError):
    """{what} is not supported."""

    kind = Kind.UNSUPPORTED


class Overloaded(MillraceError):
    """{queued} requests are already waiting, which is the limit."""

    kind = Kind.OVERLOADED
    hint = "retry after the time given, or add a replica"
    retryable = True


class Unavailable(MillraceError):
    """{what} does not answer."""

    kind = Kind.UNAVAILABLE
    retryable = True


class TimedOut(MillraceError):
    """The deadline of {seconds} seconds passed."""

    kind = Kind.TIMED_OUT
    retryable = True


class Relayed(MillraceError):
    """Another service refused."""

    def __init__(self, kind: Kind, body: ErrorBody) -> None:
        super().__init__(field=body.field)
        self.hint = body.hint
        self.kind = kind
        self.retryable = kind in (Kind.OVERLOADED, Kind.UNAVAILABLE, Kind.TIMED_OUT)
        self._body = body

    @property
    def code(self) -> str:
        return self._body.code

    def body(self) -> ErrorBody:
        """As it came, but for the field: each protocol has its own name for that."""
        return self._body.model_copy(update={"field": self.field})

    def __str__(self) -> str:
        return self._body.message
