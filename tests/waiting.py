"""Waiting in tests for something another process does, with a limit and a name."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], what: str, limit_seconds: float = 20.0) -> None:
    """Returns once `condition` holds. Fails the test, naming `what`, after the limit."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_seconds:g} s: {what}"
        time.sleep(0.01)
