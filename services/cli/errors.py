"""Exit codes of the `millrace` command, and the failures that have one.

0 done · 1 refused or failed · 2 wrong usage · 3 nothing runs, or the gateway does not answer · 4 not found ·
5 a check found a difference
"""

from enum import IntEnum


class Exit(IntEnum):
    """Documented in `docs/` and shown by `millrace --help`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_FOUND = 4
    DIFFERS = 5


class CliError(Exception):
    """What a command ends with when it could not do its work: a message, what to do about it, an exit code."""

    def __init__(self, message: str, *, hint: str = "", code: str = "failed", status: Exit = Exit.FAILED) -> None:
        self.message = message
        self.hint = hint
        self.code = code
        self.status = status
        super().__init__(message)


class NotRunning(CliError):
    """There is no fleet to talk to."""

    def __init__(self, message: str = "Millrace is not running here") -> None:
        super().__init__(message, hint="millrace up --detach", code="not_running", status=Exit.NOT_RUNNING)
