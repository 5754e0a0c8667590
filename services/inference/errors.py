"""What inference refuses, beside what each task does (`contracts/tasks/errors.py`).

MillraceError
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
    MillraceError,
    NotFound,
    Overloaded,
    TimedOut,
    Unavailable,
    Unsupported,
)


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


class EngineFailed(MillraceError):
    """The model failed on this request."""

    hint = "the same text will likely fail again on this version; roll back if it goes on"


class BringUpBroke(MillraceError):
    """Loading the version broke inside the replica."""

    hint = "the service's log has the error"
