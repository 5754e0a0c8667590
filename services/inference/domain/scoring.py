"""What an engine takes and gives, in plain values: no arrays leave the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.contracts.tasks.registry import AnyTask
from services.inference.domain.versions import VersionKey


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One request of a task to one loaded version; `deadline` is in monotonic seconds."""

    key: VersionKey
    task: AnyTask
    request: Any
    deadline: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of an answer that comes in parts, as its task has it."""

    chunk: Any


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer, as its task has it; nothing follows."""

    result: Any
    tokens: int
    embeddings: Sequence[bytes] = ()
    """Of each item, as little-endian float16, where the model gives any: by them drift is seen."""


EngineEvent: TypeAlias = Chunk | Done


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to one text."""

    scores: list[float]
    """Probabilities in the order of the version's labels; they sum to 1."""
    embedding: bytes
    """The pooled embedding as little-endian float32 values; of unit length."""
    embedding_half: bytes
    """The same as float16, for the log."""
    tokens: int
    """Tokens read, special ones included."""


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A text as the model reads it."""

    ids: list[int]
    truncated: bool
    """The text is longer than the model reads: its end is missing."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loaded version says of itself."""

    labels: list[str]
    max_length: int
    device: str
    """cpu or cuda."""
    tasks: frozenset[str]
    """What it may be asked for."""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One call of a decoder, for the metrics; `tenant` is whose model it is."""

    tenant: str
    tokens: int
    """Of one prompt; or of as many answers, a token of each."""
    is_prompt: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """One engine call, for the metrics."""

    rows: int
    tokens: int
    padding: float
    """Share of the computed tokens that was padding, 0 to 1."""
    engine_seconds: float
    longest_wait_seconds: float
    """From the oldest row's arrival to the start of the call."""
