"""Payloads that are protobuf messages."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from services.contracts.errors import Malformed

M = TypeVar("M", bound=Message)


def parse(kind: type[M], payload: bytes) -> M:
    """Raises Malformed."""
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise Malformed(problem=f"it is not a {kind.DESCRIPTOR.full_name}", field="payload") from error
