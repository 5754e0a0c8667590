"""What inference refuses.

Refusal
├── Invalid
│   ├── NoTexts
│   ├── EmptyText
│   └── BadRequestId
├── TooLarge
│   ├── TooManyTexts
│   ├── TextTooLong
│   └── ContextLengthExceeded  more tokens than the model reads, of a text that is to be read whole
├── NotFound
│   └── UnknownDeployment
├── Unavailable
│   ├── VersionNotServed       another replica, or another version, may answer
│   └── CheckBroken            the checks of an artifact could not be run; says nothing of the artifact
├── Overloaded
│   └── QueueFull
├── TimedOut
│   └── DeadlinePassed
├── Conflict
│   └── IllegalMove            a version cannot go from this state to that
├── Unsupported
│   └── ArtifactRefused        the artifact failed a check; `reason_code` says which
├── BringUpBroke               loading failed in a way that no check foresaw
└── EngineFailed               the model broke on this input
"""

from services.contracts.errors import (
    Conflict,
    Invalid,
    NotFound,
    Overloaded,
    Refusal,
    TimedOut,
    TooLarge,
    Unavailable,
    Unsupported,
)


class NoTexts(Invalid):
    """A request needs at least one text."""

    field = "texts"
    hint = "put the text to classify into 'texts'"


class EmptyText(Invalid):
    """A text to classify is empty."""

    field = "texts"
    hint = "leave empty texts out of the request"


class BadRequestId(Invalid):
    """The request id is not valid."""

    field = "request_id"
    hint = "use at most 120 letters, digits, dots, dashes, colons and underscores, or leave it out"


class TooManyTexts(TooLarge):
    """{texts} texts came in one request, and at most {limit} are taken."""

    field = "texts"
    hint = "send them in several requests"


class TextTooLong(TooLarge):
    """The text has {characters} characters, and this model takes at most {limit}."""

    field = "texts"
    hint = "the model reads only the first {tokens} tokens; send the part that decides"


class ContextLengthExceeded(TooLarge):
    """This model's maximum context length is {tokens} tokens; the text is longer."""

    field = "texts"
    hint = "split the text, or ask without 'whole_texts' to have its beginning read"


class UnknownDeployment(NotFound):
    """No deployment named '{deployment}' is served here."""

    field = "deployment"
    hint = "'millrace deployments list' shows what there is"


class VersionNotServed(Unavailable):
    """Version {version} of '{deployment}' is not ready on this replica."""

    field = "version"
    hint = "retry: another replica may serve it, or it is still loading here"


class CheckBroken(Unavailable):
    """The checks of the artifact could not be run."""

    hint = "the service's log says why; it is tried again"


class QueueFull(Overloaded):
    """{queued} texts are already waiting, and the limit is {capacity}."""


class DeadlinePassed(TimedOut):
    """The deadline of the request passed before the model answered."""

    hint = "send it with a longer deadline, or add a replica"


class IllegalMove(Conflict):
    """A version that is {state} cannot become {to}."""


class ArtifactRefused(Unsupported):
    """The artifact was refused: {reason}."""

    def __init__(self, reason_code: str, reason: str) -> None:
        """`reason_code` is stable, for programs (see `outbound/checking.py`); `reason` is for people."""
        super().__init__(reason_code=reason_code, reason=reason)
        self.reason_code = reason_code
        self.reason = reason


class EngineFailed(Refusal):
    """The model failed on this request."""

    hint = "the same text will likely fail again on this version; roll back if it goes on"


class BringUpBroke(Refusal):
    """Loading the version broke inside the replica."""

    hint = "the service's log has the error"
