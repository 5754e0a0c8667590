"""How a demo can end badly."""

from services.cli.errors import CliError


class DemoFailed(CliError):
    """The scenario did not go as it should; the message says what happened instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint or "make demo KEEP=1 leaves it running, to look at", code="demo_failed")


class NotInTime(DemoFailed):
    """Something was waited for in vain."""

    def __init__(self, what: str, limit_seconds: float) -> None:
        super().__init__(f"waited {limit_seconds:.0f} s in vain for {what}")
