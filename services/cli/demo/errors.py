"""How a demo can end badly."""

from services.cli.errors import CliError


class DemoFailed(CliError):
    """The story did not go as it should; the message says what happened instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint or "millrace demo --keep leaves it running, to look at", code="story_broke")


class NotInTime(DemoFailed):
    """Something was waited for in vain."""

    def __init__(self, what: str, limit_seconds: float) -> None:
        super().__init__(f"waited {limit_seconds:.0f} s in vain for {what}")
