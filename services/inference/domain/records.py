"""What is kept of an answered request, and the bounded buffer that it waits in until it is sent."""

import base64
import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from services.contracts.artifact import Precision
from services.contracts.events import InferenceLogged
from services.contracts.names import DEFAULT_TENANT
from services.contracts.tasks.records import InferenceRecord, Source, representative
from services.contracts.tasks.registry import AnyTask
from services.inference.domain.scoring import Done

_DENOMINATOR: Final = 2.0**64
_EVENT_BYTES: Final = 700_000


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which share of the answered requests keeps its inputs and its embedding, 0 to 1."""

    text: float = 1.0
    embedding: float = 1.0


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A record, and where it belongs."""

    deployment: str
    model: str
    task: str
    record: InferenceRecord
    trace: str = ""
    """The request's traceparent, where its trace is kept."""
    tenant: str = DEFAULT_TENANT

    @property
    def weight(self) -> int:
        """About how many bytes it takes in an event, at most."""
        strings = sum(len(value) for item in self.record.items for value in item.values() if isinstance(value, str))
        return 4 * strings + 100 * len(self.record.items) + len(self.record.embedding or "") + 700


def is_sampled(request: str, share: float) -> bool:
    """The same answer for the same request on every replica and version, so that mirrored pairs stay pairs."""
    if share >= 1.0 or share <= 0.0:
        return share >= 1.0
    digest = hashlib.blake2b(request.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _DENOMINATOR < share


def record_of(
    task: AnyTask,
    request: Any,
    done: Done | None,
    *,
    request_id: str,
    version: int,
    variant: Precision,
    source: Source,
    at: datetime,
    latency_ms: float,
    sampling: Sampling,
) -> InferenceRecord:
    """The line of the log; without `done` of a request on which the version failed."""
    result = done.result if done is not None else None
    return InferenceRecord(
        request=request_id,
        version=version,
        variant=variant,
        source=source,
        at=at,
        latency_ms=round(latency_ms, 3),
        tokens=done.tokens if done is not None else 0,
        outcome="ok" if done is not None else "fault",
        items=task.items(request, result, with_inputs=is_sampled(request_id, sampling.text)),
        embedding=_embedding(request_id, done) if is_sampled(request_id, sampling.embedding) else None,
    )


def _embedding(request_id: str, done: Done | None) -> str | None:
    if done is None or not done.embeddings:
        return None
    return base64.b64encode(done.embeddings[representative(request_id, len(done.embeddings))]).decode()


@dataclass(slots=True)
class LogBuffer:
    """Records that wait to be sent. When it is full the oldest goes: the monitor judges what happens now."""

    capacity: int
    dropped: Counter[str] = field(default_factory=Counter)
    """Records lost since the start, by tenant."""
    _waiting: deque[LoggedRequest] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, logged: LoggedRequest) -> None:
        self._waiting.append(logged)
        self._trim()

    def take(self, most: int) -> list[LoggedRequest]:
        """Up to `most` of the oldest, and no more than fit into one event; at least one."""
        taken = [self._waiting.popleft()]
        weight = taken[0].weight
        while self._waiting and len(taken) < most and weight + self._waiting[0].weight <= _EVENT_BYTES:
            taken.append(self._waiting.popleft())
            weight += taken[-1].weight
        return taken

    def put_back(self, logged: list[LoggedRequest]) -> None:
        """They could not be sent: they wait on, in front, as far as there is capacity."""
        self._waiting.extendleft(reversed(logged))
        self._trim()

    def _trim(self) -> None:
        while len(self._waiting) > self.capacity:
            self.dropped[self._waiting.popleft().tenant] += 1


def to_events(logged: list[LoggedRequest], *, replica: str) -> list[tuple[str, InferenceLogged]]:
    """One event a deployment and task, with its tenant; its records in the order of `logged`."""
    grouped: dict[tuple[str, str, str, str], list[InferenceRecord]] = {}
    for one in logged:
        grouped.setdefault((one.tenant, one.deployment, one.model, one.task), []).append(one.record)
    return [
        (tenant, InferenceLogged(deployment=deployment, model=model, replica=replica, task=task, records=records))
        for (tenant, deployment, model, task), records in grouped.items()
    ]
