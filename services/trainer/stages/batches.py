"""Texts as token ids, and batches of near-equal length.

Shapes: B texts, T tokens.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_POOL: Final = 16
"""Batches that are shuffled together before their texts are sorted by length."""


@dataclass(frozen=True)
class Batch:
    """Padded on the right; the mask is 1 on real tokens. `rows` are the positions of its texts."""

    rows: tuple[int, ...]
    ids_BT: NDArray[np.int64]
    mask_BT: NDArray[np.int64]


def encode(tokenizer: "Tokenizer", texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, the special ones included, at most `max_length`."""
    tokenizer.enable_truncation(max_length)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def pad(ids: Sequence[Sequence[int]], rows: Sequence[int], pad_id: int, length: int = 0) -> Batch:
    """The chosen rows, padded to the longest of them or to `length`, whichever is more."""
    longest = max(length, *(len(ids[row]) for row in rows))
    ids_BT = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask_BT = np.zeros((len(rows), longest), dtype=np.int64)
    for position, row in enumerate(rows):
        ids_BT[position, : len(ids[row])] = ids[row]
        mask_BT[position, : len(ids[row])] = 1
    return Batch(tuple(rows), ids_BT, mask_BT)


def by_length(ids: Sequence[Sequence[int]], size: int, pad_id: int) -> Iterator[Batch]:
    """All rows, the shortest first, so that little is padding."""
    order = sorted(range(len(ids)), key=lambda row: (len(ids[row]), row))
    for start in range(0, len(order), size):
        yield pad(ids, order[start : start + size], pad_id)


def mixed(ids: Sequence[Sequence[int]], size: int, pad_id: int) -> Iterator[Batch]:
    """All rows in their own order: short texts are padded to long ones, as in real traffic."""
    for start in range(0, len(ids), size):
        yield pad(ids, range(start, min(len(ids), start + size)), pad_id)


def shuffled(ids: Sequence[Sequence[int]], size: int, seed: int) -> list[list[int]]:
    """One epoch of batches as rows: shuffled, then of near-equal length within a pool of batches."""
    dice = random.Random(seed)
    order = list(range(len(ids)))
    dice.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), size * _POOL):
        pool = sorted(order[start : start + size * _POOL], key=lambda row: len(ids[row]))
        batches.extend(pool[position : position + size] for position in range(0, len(pool), size))
    dice.shuffle(batches)
    return batches
