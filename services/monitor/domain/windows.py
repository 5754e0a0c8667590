"""Windows of consecutive requests with different inputs. D: width of an embedding."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np

from services.contracts.artifact import Precision
from services.monitor.domain.drift import Floats

SAME_INPUT_COSINE: Final = 0.9995
"""Inputs whose text was not kept count as the same above this: batching moves an int8 embedding by less."""

WIDEST_EMBEDDING: Final = 8192


@dataclass(frozen=True)
class Sample:
    """An input that sampling kept. `text_key` is equal for equal texts, None where the text was not kept."""

    request: str
    at: datetime
    embedding_D: Floats = field(compare=False)
    text_key: str | None = None


@dataclass(frozen=True)
class Arrival:
    """A request that a variant answered, with its input where it was sampled."""

    request: str
    variant: Precision
    sample: Sample | None = None


@dataclass(frozen=True)
class OpenWindow:
    """A window that is still being filled. `answered` counts all requests since the window before it closed."""

    number: int
    samples: tuple[Sample, ...] = ()
    answered: int = 0


@dataclass(frozen=True)
class FillResult:
    """What became of the arrivals. `repeated` is how many samples were left out as repetitions; `next_window` is the
    number that the next window gets."""

    closed: tuple[OpenWindow, ...]
    open: OpenWindow
    repeated: int
    next_window: int


def fill(window: OpenWindow, arrivals: Sequence[Arrival], rows: int, *, next_window: int) -> FillResult:
    """Put the arrivals into the window; each time it holds `rows` samples it closes and the next one opens.

    A sample stays out when its request or its text is in the window already: repetitions make any test reject.
    """
    closed: list[OpenWindow] = []
    repeated = 0
    builder = _WindowBuilder(window)
    for arrival in arrivals:
        builder.answered += 1
        if arrival.sample is None:
            continue
        if not builder.add(arrival.sample):
            repeated += 1
        elif len(builder.samples) >= rows:
            closed.append(builder.build())
            builder = _WindowBuilder(OpenWindow(number=next_window))
            next_window += 1
    return FillResult(tuple(closed), builder.build(), repeated, next_window)


class _WindowBuilder:
    """A window while arrivals are put into it."""

    def __init__(self, window: OpenWindow) -> None:
        self.number = window.number
        self.answered = window.answered
        self.samples = list(window.samples)
        self._requests = {sample.request for sample in window.samples}
        self._texts = {sample.text_key for sample in window.samples if sample.text_key is not None}

    def add(self, sample: Sample) -> bool:
        if sample.request in self._requests or sample.text_key in self._texts:
            return False
        if self.samples and self.samples[0].embedding_D.shape != sample.embedding_D.shape:
            return False
        if sample.text_key is None and self._has_alike(sample):
            return False
        self._requests.add(sample.request)
        if sample.text_key is not None:
            self._texts.add(sample.text_key)
        self.samples.append(sample)
        return True

    def _has_alike(self, sample: Sample) -> bool:
        if not self.samples:
            return False
        rows_ND = np.stack([earlier.embedding_D for earlier in self.samples])
        lengths_N = np.linalg.norm(rows_ND, axis=1) * np.linalg.norm(sample.embedding_D)
        return bool((rows_ND @ sample.embedding_D >= SAME_INPUT_COSINE * np.maximum(lengths_N, 1e-12)).any())

    def build(self) -> OpenWindow:
        return OpenWindow(self.number, tuple(self.samples), self.answered)


def text_key(text: str) -> str:
    """Equal for texts that differ in case and white space alone."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()[:32]


def decode_embedding(encoded: str) -> Floats | None:
    """float32 [D] from base64 of little-endian float16; None when it is not that, not finite, empty or too wide."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not raw or len(raw) % 2 or len(raw) > 2 * WIDEST_EMBEDDING:
        return None
    row_D = np.frombuffer(raw, dtype="<f2").astype(np.float32)
    return row_D if bool(np.isfinite(row_D).all()) else None


def encode_embedding(row_D: Floats) -> bytes:
    """Little-endian float16, as it arrived."""
    return row_D.astype("<f2").tobytes()


def read_embedding(raw: bytes) -> Floats:
    """float32 [D] of what `encode_embedding` made."""
    return np.frombuffer(raw, dtype="<f2").astype(np.float32)


def rows_of(samples: Sequence[Sample]) -> Floats:
    """float32 [rows, D] in the samples' order; [0, 0] without samples."""
    if not samples:
        return np.zeros((0, 0), dtype=np.float32)
    return np.stack([sample.embedding_D for sample in samples])
