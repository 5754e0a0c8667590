"""A batch's life: `decide(batch, command) -> facts` and `evolve(batch, fact) -> batch`, both pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from services.contracts.errors import MillraceError
from services.contracts.names import DeploymentName, TaskName
from services.gateway.errors import BatchHasEnded


class BatchStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


NEXT: Final[dict[BatchStatus, frozenset[BatchStatus]]] = {
    BatchStatus.QUEUED: frozenset({BatchStatus.RUNNING, BatchStatus.FAILED, BatchStatus.CANCELLED}),
    BatchStatus.RUNNING: frozenset({BatchStatus.SUCCEEDED, BatchStatus.FAILED, BatchStatus.CANCELLED}),
    BatchStatus.SUCCEEDED: frozenset(),
    BatchStatus.FAILED: frozenset(),
    BatchStatus.CANCELLED: frozenset(),
}
"""After a kill a batch that runs is taken up again and runs on: that is no move."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)

    @property
    def kind(self) -> str:
        return type(self).__name__


class BatchSpec(_Frozen):
    """Which rows are to be answered, by which task, and how."""

    deployment: DeploymentName
    uri: str = Field(min_length=1, max_length=2000)
    format: Literal["jsonl", "csv"] = "jsonl"
    text_column: str = Field(default="text", min_length=1, max_length=200)
    version: int = Field(default=0, ge=0)
    task: TaskName = "classification"
    options: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the task's request, as JSON."""


class Part(_Frozen):
    """Rows that were answered together: one file of the output, written whole before it counts."""

    number: int
    name: str
    rows: int
    failed_rows: int
    last_row: int
    read_bytes: int
    """How far the input had been read after it."""
    size_bytes: int
    sha256: str
    versions: list[int]


class BatchFailure(_Frozen):
    code: str
    reason: str
    row: int | None = None


class Outcome(_Frozen):
    """Where the output lies, and the hash that fixes it."""

    output_uri: str
    manifest_uri: str
    size_bytes: int
    sha256: str


# --- facts -------------------------------------------------------------------------------------


class BatchQueued(_Frozen):
    spec: BatchSpec


class BatchTakenUp(_Frozen):
    """A worker began, or went on after a kill. `stamp` tells one state of the input from another."""

    attempt: int
    stamp: str
    size_bytes: int


class BatchSucceeded(_Frozen):
    outcome: Outcome
    rows: int
    failed_rows: int


class BatchFailed(_Frozen):
    failure: BatchFailure


class BatchCancelled(_Frozen):
    pass


BatchFact: TypeAlias = BatchQueued | BatchTakenUp | BatchSucceeded | BatchFailed | BatchCancelled


# --- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartAttempt:
    attempt: int
    stamp: str
    size_bytes: int


@dataclass(frozen=True)
class Succeed:
    outcome: Outcome


@dataclass(frozen=True)
class Fail:
    failure: BatchFailure


@dataclass(frozen=True)
class Cancel:
    pass


Command: TypeAlias = StartAttempt | Succeed | Fail | Cancel


# --- the state ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """One batch as its facts and its parts made it."""

    id: str
    tenant: str
    spec: BatchSpec
    created_by: str
    created_at: datetime
    status: BatchStatus = BatchStatus.QUEUED
    attempt: int = 0
    stamp: str = ""
    size_bytes: int = 0
    parts: int = 0
    rows: int = 0
    failed_rows: int = 0
    last_row: int = 0
    read_bytes: int = 0
    versions: tuple[int, ...] = ()
    failure: BatchFailure | None = None
    outcome: Outcome | None = None
    ended_at: datetime | None = None
    trace_id: str = ""

    @property
    def ended(self) -> bool:
        return not NEXT[self.status]

    @property
    def progress(self) -> float:
        """0 to 1 of the input's bytes."""
        if self.status is BatchStatus.SUCCEEDED:
            return 1.0
        return min(1.0, self.read_bytes / self.size_bytes) if self.size_bytes else 0.0


def decide(batch: Batch, command: Command) -> Sequence[BatchFact]:
    """What follows from the command. Raises BatchHasEnded for a batch that has."""
    if batch.ended:
        raise BatchHasEnded(batch=batch.id, status=batch.status)
    match command:
        case StartAttempt(attempt, stamp, size_bytes):
            if batch.stamp not in ("", stamp):
                reason = "the file was changed while the batch ran"
                return (BatchFailed(failure=BatchFailure(code="input_changed", reason=reason)),)
            return (BatchTakenUp(attempt=attempt, stamp=stamp, size_bytes=size_bytes),)
        case Succeed(outcome):
            return (BatchSucceeded(outcome=outcome, rows=batch.rows, failed_rows=batch.failed_rows),)
        case Fail(failure):
            return (BatchFailed(failure=failure),)
        case Cancel():
            return (BatchCancelled(),)


def evolve(batch: Batch, fact: BatchFact, at: datetime) -> Batch:
    """The batch after the fact. Raises ValueError for a move that `NEXT` does not know."""
    match fact:
        case BatchQueued():
            return batch
        case BatchTakenUp(attempt=attempt, stamp=stamp, size_bytes=size_bytes):
            running = batch if batch.status is BatchStatus.RUNNING else _moved(batch, BatchStatus.RUNNING)
            return replace(running, attempt=attempt, stamp=stamp, size_bytes=size_bytes)
        case BatchSucceeded(outcome=outcome):
            return replace(_moved(batch, BatchStatus.SUCCEEDED), outcome=outcome, ended_at=at)
        case BatchFailed(failure=failure):
            return replace(_moved(batch, BatchStatus.FAILED), failure=failure, ended_at=at)
        case BatchCancelled():
            return replace(_moved(batch, BatchStatus.CANCELLED), ended_at=at)


def with_part(batch: Batch, part: Part) -> Batch:
    """The batch after one more part. Raises ValueError for any but the next one."""
    if batch.status is not BatchStatus.RUNNING or part.number != batch.parts + 1 or part.last_row <= batch.last_row:
        raise ValueError(f"part {part.number} does not follow part {batch.parts} of a batch that is {batch.status}")
    return replace(
        batch,
        parts=part.number,
        rows=batch.rows + part.rows,
        failed_rows=batch.failed_rows + part.failed_rows,
        last_row=part.last_row,
        read_bytes=part.read_bytes,
        versions=tuple(sorted({*batch.versions, *part.versions})),
    )


def failure_of(error: MillraceError) -> BatchFailure:
    """What ended the batch, in the words of its refusal."""
    row = error.details.get("row")
    return BatchFailure(code=error.code, reason=str(error), row=row if isinstance(row, int) else None)


def _moved(batch: Batch, status: BatchStatus) -> Batch:
    if status not in NEXT[batch.status]:
        raise ValueError(f"a batch that is {batch.status} cannot become {status}")
    return replace(batch, status=status)
