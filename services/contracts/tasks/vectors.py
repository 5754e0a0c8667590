"""Embeddings: float32 values in memory and on the wire, base64 of the little-endian values in JSON."""

import base64
import binascii
import math
import struct
import sys
from array import array
from collections.abc import Sequence
from typing import TypeAlias

Embedding: TypeAlias = "array[float]"
"""Of type code 'f': float32."""


def from_bytes(values: bytes) -> Embedding:
    """Of little-endian float32 values."""
    embedding = array("f")
    embedding.frombytes(values)
    if sys.byteorder == "big":
        embedding.byteswap()
    return embedding


def to_base64(embedding: Embedding) -> str:
    """Of little-endian float32 values."""
    if sys.byteorder == "big":
        embedding = array("f", embedding)
        embedding.byteswap()
    return base64.b64encode(embedding.tobytes()).decode()


def half_from_base64(text: str) -> Sequence[float] | None:
    """Of little-endian float16 values; None where it is not that."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return struct.unpack(f"<{len(raw) // 2}e", raw) if raw and len(raw) % 2 == 0 else None


def cosine(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Of two vectors of one width, -1 to 1; None where the widths differ or one has no length."""
    if len(left) != len(right):
        return None
    lengths = math.hypot(*left) * math.hypot(*right)
    return math.fsum(a * b for a, b in zip(left, right, strict=True)) / lengths if lengths else None
