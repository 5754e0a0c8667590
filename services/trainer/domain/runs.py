"""A run's life: `decide(run, command) -> facts` and `evolve(run, fact) -> run`, both pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from pydantic import BaseModel, ConfigDict

from services.contracts.artifact import ArtifactRef
from services.contracts.training import Recipe
from services.trainer.domain.spec import INTERRUPTED, DataContent, Failure, Handle, RunResult, Stage, TrainingSpec
from services.trainer.errors import AttemptUnderWay, RunHasEnded


class RunStatus(StrEnum):
    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    EVALUATING = "evaluating"
    EXPORTING = "exporting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_WORKING: Final = (RunStatus.PREPARING, RunStatus.TRAINING, RunStatus.EVALUATING, RunStatus.EXPORTING)
_ENDED: Final = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED})
_FROM_WORK: Final = {*_WORKING, *_ENDED, RunStatus.QUEUED}

NEXT: Final[dict[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.QUEUED: frozenset({*_WORKING, RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED}),
    **{status: frozenset(_FROM_WORK - {status}) for status in _WORKING},
    **{status: frozenset() for status in _ENDED},
}
"""After a kill a run is taken up at the stage it had reached, so any working state may follow any other."""

STATUS_OF: Final = {
    Stage.PREPARE: RunStatus.PREPARING,
    Stage.TRAIN: RunStatus.TRAINING,
    Stage.EVALUATE: RunStatus.EVALUATING,
    Stage.EXPORT: RunStatus.EXPORTING,
    Stage.COMPRESS: RunStatus.EXPORTING,
    Stage.PACKAGE: RunStatus.EXPORTING,
    Stage.PUBLISH: RunStatus.EXPORTING,
}

STAGE_OF: Final = {status: stage for stage, status in reversed(STATUS_OF.items())}
"""The first stage of each state."""


# --- facts -------------------------------------------------------------------------------------


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)

    @property
    def kind(self) -> str:
        return type(self).__name__


class RunQueued(_Fact):
    """A run was asked for by a data set or by a drift."""

    model: str
    dataset: str
    cause: str
    parent: int | None = None
    content_hash: str | None = None


class SpecFixed(_Fact):
    """What every attempt at the run depends on, the champion of that moment included."""

    spec: TrainingSpec


class AttemptStarted(_Fact):
    """An executor has taken an attempt; whoever drives the run asks it about this handle."""

    attempt: int
    handle: Handle


class StageBegun(_Fact):
    stage: Stage
    status: RunStatus


class DataRead(_Fact):
    """The data set's file was read, and is known by its content from now on."""

    content: DataContent


class RunPutBack(_Fact):
    """An attempt failed in a way that another may not."""

    failure: Failure


class AttemptInterrupted(_Fact):
    """An attempt was ended from outside; the next one goes on from its checkpoint."""

    failure: Failure


class RunSucceeded(_Fact):
    result: RunResult


class RunFailed(_Fact):
    failure: Failure


class RunCancelled(_Fact):
    by: str = ""
    reason: str = ""


RunFact: TypeAlias = (
    RunQueued
    | SpecFixed
    | AttemptStarted
    | StageBegun
    | DataRead
    | RunPutBack
    | AttemptInterrupted
    | RunSucceeded
    | RunFailed
    | RunCancelled
)


# --- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FixSpec:
    spec: TrainingSpec


@dataclass(frozen=True)
class StartAttempt:
    handle: Handle


@dataclass(frozen=True)
class BeginStage:
    stage: Stage


@dataclass(frozen=True)
class Succeed:
    result: RunResult


@dataclass(frozen=True)
class Fail:
    """An attempt failed; whether the run did is what is to be decided."""

    failure: Failure
    attempts: int
    """How many failed attempts a run is given."""


@dataclass(frozen=True)
class ReadData:
    content: DataContent


@dataclass(frozen=True)
class Cancel:
    actor: str
    reason: str


Command: TypeAlias = FixSpec | StartAttempt | BeginStage | ReadData | Succeed | Fail | Cancel


# --- the state ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One run as its facts made it."""

    id: str
    tenant: str
    model: str
    dataset: str
    cause: str
    created_at: datetime
    parent: int | None = None
    status: RunStatus = RunStatus.QUEUED
    progress: float = 0.0
    """0 to 1 within the stage; told often, so it is no fact."""
    progress_read: int = 0
    """How much of the attempt's progress is mirrored here, as the executor counts it: no fact either."""
    spec: TrainingSpec | None = None
    attempt: int = 0
    failed_attempts: int = 0
    executing: bool = False
    """Whether the attempt that `handle` names is under way, as far as is known."""
    handle: Handle | None = None
    """Of the latest attempt; kept after its end, since its log is asked for."""
    failure: Failure | None = None
    artifact: ArtifactRef | None = None
    result: RunResult | None = None
    ended_at: datetime | None = None
    trace_id: str = ""
    announced_hash: str | None = None
    content: DataContent | None = None
    recipe: Recipe | None = None
    deploy: bool = True
    started_by: str = ""
    start_reason: str = ""
    cancelled_by: str = ""
    cancel_reason: str = ""

    @property
    def ended(self) -> bool:
        return self.status in _ENDED

    @property
    def stage(self) -> Stage:
        """As far as its state tells; the first one while it waits."""
        return STAGE_OF.get(self.status, Stage.PREPARE)

    @property
    def content_hash(self) -> str:
        """Of the file: as the run found it, else as it was announced; empty when it is not known yet."""
        return self.content.sha256 if self.content else self.announced_hash or ""


@dataclass(frozen=True)
class RunFilter:
    """Which runs are wanted; what is left empty lets all through."""

    model: str = ""
    status: str = ""
    dataset: str = ""
    since: datetime | None = None


def decide(run: Run, command: Command) -> Sequence[RunFact]:
    """What follows from the command. Raises RunHasEnded for a run that has, and AttemptUnderWay."""
    if run.ended:
        raise RunHasEnded(run=run.id, status=run.status)
    match command:
        case FixSpec(spec):
            return (SpecFixed(spec=spec),) if run.spec is None else ()
        case StartAttempt(handle):
            return _start(run, handle)
        case BeginStage(stage):
            status = STATUS_OF[stage]
            return () if run.status is status else (StageBegun(stage=stage, status=status),)
        case ReadData(content):
            return () if run.content == content else (DataRead(content=content),)
        case Succeed(result):
            return (RunSucceeded(result=result),)
        case Fail(failure, _) if failure.code == INTERRUPTED:
            return (AttemptInterrupted(failure=failure),)
        case Fail(failure, attempts):
            again = failure.retryable and run.failed_attempts + 1 < attempts
            return (RunPutBack(failure=failure),) if again else (RunFailed(failure=failure),)
        case Cancel(actor, reason):
            return (RunCancelled(by=actor, reason=reason),)


def has_abandoned(run: Run, handle: Handle) -> bool:
    """Whether the run no longer waits for this execution. One that it has not heard of yet is the next attempt."""
    if run.ended or handle.attempt < run.attempt:
        return True
    return handle.attempt == run.attempt and not run.executing


def _start(run: Run, handle: Handle) -> Sequence[RunFact]:
    """One attempt at a time. Raises AttemptUnderWay."""
    if not run.executing:
        return (AttemptStarted(attempt=handle.attempt, handle=handle),)
    if run.handle != handle:
        raise AttemptUnderWay(run=run.id, attempt=run.attempt)
    return ()


def evolve(run: Run, fact: RunFact, at: datetime) -> Run:
    """The run after the fact. Raises ValueError for a move that `NEXT` does not know."""
    match fact:
        case RunQueued():
            pass
        case SpecFixed(spec=spec):
            run = replace(run, spec=spec)
        case AttemptStarted(attempt=attempt, handle=handle):
            run = replace(run, attempt=attempt, handle=handle, executing=True, progress_read=0)
        case StageBegun(status=status):
            run = replace(_moved(run, status), progress=0.0)
        case DataRead(content=content):
            run = replace(run, content=content)
        case RunPutBack(failure=failure):
            run = replace(_queued(run), failed_attempts=run.failed_attempts + 1, failure=failure)
        case AttemptInterrupted(failure=failure):
            run = replace(_queued(run), failure=failure)
        case RunSucceeded(result=result):
            done = _ended(run, RunStatus.SUCCEEDED, at)
            run = replace(done, progress=1.0, artifact=result.artifact, result=result, failure=None)
        case RunFailed(failure=failure):
            run = replace(_ended(run, RunStatus.FAILED, at), failure=failure)
        case RunCancelled(by=by, reason=reason):
            run = replace(_ended(run, RunStatus.CANCELLED, at), cancelled_by=by, cancel_reason=reason)
    return run


def _queued(run: Run) -> Run:
    """The run between two attempts."""
    back = run if run.status is RunStatus.QUEUED else _moved(run, RunStatus.QUEUED)
    return replace(back, progress=0.0, executing=False)


def _ended(run: Run, status: RunStatus, at: datetime) -> Run:
    return replace(_moved(run, status), executing=False, ended_at=at)


def _moved(run: Run, status: RunStatus) -> Run:
    if status not in NEXT[run.status]:
        raise ValueError(f"a run that is {run.status} cannot become {status}")
    return replace(run, status=status)
