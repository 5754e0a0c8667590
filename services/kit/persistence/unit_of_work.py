"""What a handler may do inside one transaction, without knowing which database keeps it.

`services/kit/persistence/sql/unit_of_work.py` is the one implementation, on SQLite and PostgreSQL alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from services.contracts.errors import Conflict
from services.contracts.events import Event
from services.contracts.names import DEFAULT_TENANT
from services.kit.core.idempotency import IdempotencyKey
from services.kit.messaging.envelope import Envelope, EventRef

Payload = Mapping[str, Any]


class LostLease(Conflict):
    """The lease on job {job} has passed to another worker."""


@dataclass(frozen=True)
class Timer:
    """Something to do at a given time. One timer a key: scheduling it again moves it."""

    key: str
    kind: str
    due: datetime
    payload: Payload = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT
    cause: EventRef | None = None
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobRequest:
    """Work that takes long, to be done once by a worker that holds its lease."""

    id: str
    kind: str
    payload: Payload = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True)
class Job:
    """A job under lease. `fence` grows with every lease: a holder of an older one writes nothing."""

    id: str
    kind: str
    payload: Payload
    tenant: str
    fence: int
    attempt: int
    trace: Mapping[str, str]
    cause: EventRef | None = None


JOB_DONE: Final = "done"
JOB_FAILED: Final = "failed"
JOB_CANCELLED: Final = "cancelled"


class UnitOfWork(Protocol):
    """One transaction: all of it is kept, or none of it."""

    async def mark_processed(self, envelope: Envelope[Event]) -> bool:
        """Marks the event as handled; False when it was handled before."""
        ...

    async def emit(self, event: Event, *, cause: EventRef | None = None, tenant: str | None = None) -> str:
        """Leaves the event for the relay and returns its id. Raises TooLarge.

        Tenant, causation and correlation come from `cause`; the trace context is the present one.
        """
        ...

    async def find_idempotent_response(self, key: IdempotencyKey) -> str | None:
        """Takes the idempotency key for this transaction; what its first request was answered with, or None.

        Raises KeyReused when the key came with another request.
        """
        ...

    async def save_idempotent_response(self, key: IdempotencyKey, answer: str) -> None:
        """What a repetition of this transaction's request will be answered with."""
        ...

    async def schedule(self, timer: Timer) -> None:
        """Sets the timer, or moves the one that has its key. Without a trace of its own it keeps the present one."""
        ...

    async def cancel_timer(self, key: str) -> None: ...

    async def take_timer(self, timer: Timer) -> bool:
        """Removes a due timer; False when it was moved or taken since it was read."""
        ...

    async def enqueue_job(self, request: JobRequest, *, cause: EventRef | None = None) -> None: ...

    async def lease_job(self, kind: str, owner: str, now: datetime, lease_seconds: float) -> Job | None:
        """The oldest job that waits or whose lease has run out, with a new fence; None when there is none."""
        ...

    async def renew_job(self, job: Job, now: datetime, lease_seconds: float) -> None:
        """Raises LostLease when another worker has it."""
        ...

    async def release_job(self, job: Job, due: datetime) -> None:
        """Gives the job back, to be leased again from `due` on. Raises LostLease."""
        ...

    async def finish_job(self, job: Job, state: str) -> None:
        """Raises LostLease, so that a worker that was thought dead changes nothing."""
        ...

    async def cancel_job(self, job: str) -> bool:
        """Ends the job whoever holds it; False when it had ended."""
        ...
