"""What was computed of earlier prompts, found again by the tokens that a new prompt begins with."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

SHORTEST: Final = 8
"""Tokens; a shorter beginning is not worth a copy."""
TO_COMPUTE: Final = 2
"""Tokens of a prompt that are always computed anew. One alone would take another path through the kernels than it
does within a prompt, whose last bits differ: then the same seed would not give the same text."""


@dataclass(frozen=True, slots=True)
class Prefix(Generic[T]):
    """The first `length` tokens of an earlier prompt; `value` covers at least these."""

    value: T
    length: int


@dataclass(slots=True)
class PrefixCache(Generic[T]):
    """Holds values for at most `capacity` tokens; the one that was used longest ago goes first. Not locked."""

    capacity: int
    _entries: OrderedDict[bytes, tuple[npt.NDArray[np.int32], T]] = field(default_factory=OrderedDict)
    _tokens: int = 0

    def find(self, ids: Sequence[int]) -> Prefix[T] | None:
        """The longest beginning that `ids` shares with an earlier prompt; None where none is long enough."""
        prompt_T = np.array(ids[: max(0, len(ids) - TO_COMPUTE)], dtype=np.int32)
        best_key, best = b"", 0
        for key, (ids_T, _) in self._entries.items():
            shared = _shared(prompt_T, ids_T)
            if shared > best:
                best_key, best = key, shared
        if best < SHORTEST:
            return None
        self._entries.move_to_end(best_key)
        return Prefix(self._entries[best_key][1], best)

    def needs(self, ids: Sequence[int]) -> bool:
        """Whether a value for this prompt would add to what is there."""
        if not SHORTEST <= len(ids) <= self.capacity:
            return False
        ids_T = np.array(ids, dtype=np.int32)
        return all(_shared(ids_T, other_T) < len(ids_T) for other_T, _ in self._entries.values())

    def add(self, ids: Sequence[int], value: T) -> None:
        """Replaces those that are beginnings of this prompt."""
        ids_T = np.array(ids, dtype=np.int32)
        for key, (other_T, _) in list(self._entries.items()):
            if _shared(ids_T, other_T) == len(other_T):
                self._drop(key)
        while self._entries and self._tokens + len(ids_T) > self.capacity:
            self._drop(next(iter(self._entries)))
        self._entries[ids_T.tobytes()] = (ids_T, value)
        self._tokens += len(ids_T)

    def clear(self) -> None:
        self._entries.clear()
        self._tokens = 0

    def _drop(self, key: bytes) -> None:
        ids_T, _ = self._entries.pop(key)
        self._tokens -= len(ids_T)


def _shared(left_T: npt.NDArray[np.int32], right_T: npt.NDArray[np.int32]) -> int:
    """Tokens that both begin with."""
    length = min(len(left_T), len(right_T))
    differs_T = np.flatnonzero(left_T[:length] != right_T[:length])
    return int(differs_T[0]) if len(differs_T) else length
