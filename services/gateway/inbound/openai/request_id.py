"""The id of the request under way, so that an error tells the id that the log knows it by."""

from contextvars import ContextVar
from typing import Final

_request_id: Final[ContextVar[str]] = ContextVar("request_id", default="")


def current_request_id() -> str:
    """Empty before the request was admitted."""
    return _request_id.get()


def set_request_id(value: str) -> None:
    _request_id.set(value)
