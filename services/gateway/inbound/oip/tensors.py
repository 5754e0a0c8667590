"""Tensors as bytes: strings are a length (u32, little-endian) and their UTF-8 each, floats are float32, little-endian.

Everything is checked against the element count that was told, before anything is copied.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

from services.contracts.errors import BadField
from services.contracts.tasks.texts import MAX_TEXTS

BYTES: Final = "BYTES"
FP32: Final = "FP32"
_LENGTH: Final = struct.Struct("<I")


def count_texts(shape: Sequence[int], at: str) -> int:
    """N of a shape [N] or [N, 1]. Raises BadField for any other, and beyond the largest batch."""
    if any(size < 0 for size in shape):
        raise BadField(name=at, problem="a size is negative", field=at)
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise BadField(name=at, problem="it must be [N] or [N, 1], where N is the number of texts", field=at)
    if not 1 <= shape[0] <= MAX_TEXTS:
        raise BadField(name=at, problem=f"send 1 to {MAX_TEXTS} texts", field=at)
    return shape[0]


def pack_strings(strings: Iterable[str]) -> bytes:
    parts: list[bytes] = []
    for string in strings:
        encoded = string.encode()
        parts.append(_LENGTH.pack(len(encoded)))
        parts.append(encoded)
    return b"".join(parts)


def unpack_strings(raw: bytes | memoryview, count: int, at: str) -> list[str]:
    """Exactly `count` strings that fill `raw`. Raises BadField where the bytes tell of more, of fewer, or no UTF-8."""
    strings: list[str] = []
    offset, end = 0, len(raw)
    for _ in range(count):
        begin = offset + _LENGTH.size
        if begin > end:
            raise _unlike(len(strings), count, at)
        offset = begin + _LENGTH.unpack_from(raw, begin - _LENGTH.size)[0]
        if offset > end:
            problem = f"element {len(strings)} is said to be longer than the bytes that are left"
            raise BadField(name=at, problem=problem, field=at)
        strings.append(decoded(raw[begin:offset], len(strings), at))
    if offset != end:
        problem = f"{end - offset} bytes are left after the {count} elements that the shape tells of"
        raise BadField(name=at, problem=problem, field=at)
    return strings


def decoded(element: bytes | memoryview, index: int, at: str) -> str:
    """Raises BadField unless it is UTF-8."""
    try:
        return str(element, "utf-8")
    except UnicodeDecodeError as error:
        raise BadField(name=at, problem=f"element {index} is not UTF-8", field=at) from error


def check_count(actual: int, count: int, at: str) -> None:
    """Raises BadField unless there are as many elements as the shape tells of."""
    if actual != count:
        raise _unlike(actual, count, at)


def _unlike(actual: int, count: int, at: str) -> BadField:
    return BadField(name=at, problem=f"it has {actual} elements, and the shape tells of {count}", field=at)


def pack_floats(values: "array[float]") -> bytes:
    if sys.byteorder == "big":
        values = array("f", values)
        values.byteswap()
    return values.tobytes()
