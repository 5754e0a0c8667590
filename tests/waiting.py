"""Waiting in tests for something another process does, with a limit and a name."""

import time
from collections.abc import Callable
from typing import Final

LIMIT_SECONDS: Final = 60.0
"""Of every wait for what must come: a guard against hanging, far beyond any stall of a loaded machine."""


def until(condition: Callable[[], bool], what: str, limit_seconds: float = LIMIT_SECONDS) -> None:
    """Returns once `condition` holds. Fails the test, naming `what`, after the limit."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_seconds:g} s: {what}"
        time.sleep(0.01)
