"""What is kept of an answered request, and the bounded buffer that it waits in until it is sent."""

import base64
import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from services.contracts.events import InferenceLogged, InferenceRecord
from services.contracts.names import DEFAULT_TENANT

_DENOMINATOR: Final = 2.0**64
_TEXT_LIMIT: Final = 4000
_EVENT_BYTES: Final = 700_000


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which share of the answered requests keeps its text and its embedding, 0 to 1."""

    text: float
    embedding: float


@dataclass(frozen=True, slots=True)
class Answered:
    """One text of a request and what came of it."""

    deployment: str
    model: str
    version: int
    request: str
    mirrored: bool
    at: datetime
    latency_ms: float
    text: str
    tokens: int = 0
    outcome: Literal["ok", "error"] = "ok"
    label: str | None = None
    score: float | None = None
    embedding: bytes | None = None
    """Little-endian float16 values."""
    trace: str = ""
    """The request's traceparent, where its trace is kept."""
    tenant: str = DEFAULT_TENANT

    @property
    def weight(self) -> int:
        """About how many bytes it takes in an event, at most."""
        return 4 * min(len(self.text), _TEXT_LIMIT) + 2 * len(self.embedding or b"") + 700


def record_id(request: str, index: int, texts: int) -> str:
    """The id under which feedback finds the answer: the request's own, or `request:index` where it had several."""
    return request if texts == 1 else f"{request}:{index}"


def is_sampled(request: str, share: float) -> bool:
    """The same answer for the same request on every replica and version, so that mirrored pairs stay pairs."""
    if share >= 1.0 or share <= 0.0:
        return share >= 1.0
    digest = hashlib.blake2b(request.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _DENOMINATOR < share


def to_record(answered: Answered, sampling: Sampling) -> InferenceRecord:
    """The line of the log; the text is cut at 4,000 characters."""
    keeps_text = is_sampled(answered.request, sampling.text)
    keeps_embedding = answered.embedding is not None and is_sampled(answered.request, sampling.embedding)
    return InferenceRecord(
        request=answered.request,
        version=answered.version,
        mirrored=answered.mirrored,
        at=answered.at,
        latency_ms=round(answered.latency_ms, 3),
        tokens=answered.tokens,
        outcome=answered.outcome,
        label=answered.label,
        score=answered.score,
        text=answered.text[:_TEXT_LIMIT] if keeps_text else None,
        embedding=base64.b64encode(answered.embedding or b"").decode() if keeps_embedding else None,
    )


@dataclass(slots=True)
class LogBuffer:
    """Answers that wait to be sent. When it is full the oldest goes: the monitor judges what happens now."""

    capacity: int
    dropped: Counter[str] = field(default_factory=Counter)
    """Answers lost since the start, by tenant."""
    _waiting: deque[Answered] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, answered: Answered) -> None:
        self._waiting.append(answered)
        self._trim()

    def take(self, most: int) -> list[Answered]:
        """Up to `most` of the oldest, and no more than fit into one event; at least one."""
        taken = [self._waiting.popleft()]
        weight = taken[0].weight
        while self._waiting and len(taken) < most and weight + self._waiting[0].weight <= _EVENT_BYTES:
            taken.append(self._waiting.popleft())
            weight += taken[-1].weight
        return taken

    def put_back(self, answers: list[Answered]) -> None:
        """They could not be sent: they wait on, in front, as far as there is room."""
        self._waiting.extendleft(reversed(answers))
        self._trim()

    def _trim(self) -> None:
        while len(self._waiting) > self.capacity:
            self.dropped[self._waiting.popleft().tenant] += 1


def to_events(answers: list[Answered], *, replica: str, sampling: Sampling) -> list[tuple[str, InferenceLogged]]:
    """One event a deployment, with its tenant; its records in the order of `answers`."""
    grouped: dict[tuple[str, str, str], list[InferenceRecord]] = {}
    for answered in answers:
        place = answered.tenant, answered.deployment, answered.model
        grouped.setdefault(place, []).append(to_record(answered, sampling))
    return [
        (tenant, InferenceLogged(deployment=deployment, model=model, replica=replica, records=records))
        for (tenant, deployment, model), records in grouped.items()
    ]
