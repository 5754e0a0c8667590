"""Identifiers and randomness as ports: unique for the services, repeatable for replays."""

import os
import random
import time
from typing import Protocol

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case


class Ids(Protocol):
    def new(self, kind: str) -> str:
        """A fresh identifier such as `run-01jd4s...`; later ones sort after earlier ones."""
        ...

    def seed(self) -> int:
        """A number below 2**31 to seed a generator with."""
        ...


def _base32(value: int, digits: int) -> str:
    return "".join(_ALPHABET[(value >> (5 * digit)) & 31] for digit in reversed(range(digits)))


class SystemIds:
    """48 bits of milliseconds and 80 random bits, as in a monotonic ULID (github.com/ulid/spec).

    Within one millisecond, and after a clock that was set back, the last number plus one.
    """

    def __init__(self) -> None:
        self._last = 0

    def new(self, kind: str) -> str:
        milliseconds = time.time_ns() // 1_000_000
        self._last = max(self._last + 1, milliseconds << 80 | int.from_bytes(os.urandom(10)))
        return f"{kind}-{_base32(self._last, 26)}"

    def seed(self) -> int:
        return int.from_bytes(os.urandom(4)) & 0x7FFFFFFF


class SeededIds:
    """Counts up, and draws its seeds from one generator: the same seed gives the same names."""

    def __init__(self, seed: int) -> None:
        self._made = 0
        self._random = random.Random(seed)

    def new(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-{_base32(self._made, 10)}"

    def seed(self) -> int:
        return self._random.getrandbits(31)
