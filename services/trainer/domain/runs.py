"""A run's life: `decide(run, command) -> facts` and `evolve(run, fact) -> run`, both pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from pydantic import BaseModel, ConfigDict

from services.contracts.artifact import ArtifactRef
from services.contracts.training import Recipe
from services.trainer.domain.spec import DataContent, Failure, RunResult, Stage
from services.trainer.errors import RunHasEnded


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
}


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


class RunTakenUp(_Fact):
    """A worker began, or went on after a kill."""

    attempt: int


class StageBegun(_Fact):
    stage: Stage
    status: RunStatus


class DataRead(_Fact):
    """The data set's file was read, and is known by its content from now on."""

    content: DataContent


class RunPutBack(_Fact):
    """An attempt failed in a way that another may not."""

    failure: Failure


class RunSucceeded(_Fact):
    artifact: ArtifactRef
    result: RunResult


class RunFailed(_Fact):
    failure: Failure


class RunCancelled(_Fact):
    by: str = ""
    reason: str = ""


RunFact: TypeAlias = (
    RunQueued | RunTakenUp | StageBegun | DataRead | RunPutBack | RunSucceeded | RunFailed | RunCancelled
)


# --- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TakeUp:
    attempt: int


@dataclass(frozen=True)
class BeginStage:
    stage: Stage


@dataclass(frozen=True)
class Succeed:
    artifact: ArtifactRef
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


Command: TypeAlias = TakeUp | BeginStage | ReadData | Succeed | Fail | Cancel


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
    attempt: int = 0
    failed_attempts: int = 0
    failure: Failure | None = None
    artifact: ArtifactRef | None = None
    result: RunResult | None = None
    ended_at: datetime | None = None
    trace_id: str = ""
    announced_hash: str | None = None
    content: DataContent | None = None
    recipe: Recipe | None = None
    hold_back: bool = False
    started_by: str = ""
    start_reason: str = ""
    cancelled_by: str = ""
    cancel_reason: str = ""

    @property
    def ended(self) -> bool:
        return self.status in _ENDED

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
    """What follows from the command. Raises RunHasEnded for a run that has."""
    if run.ended:
        raise RunHasEnded(run=run.id, status=run.status)
    match command:
        case TakeUp(attempt):
            return (RunTakenUp(attempt=attempt),)
        case BeginStage(stage):
            status = STATUS_OF[stage]
            return () if run.status is status else (StageBegun(stage=stage, status=status),)
        case ReadData(content):
            return () if run.content == content else (DataRead(content=content),)
        case Succeed(artifact, result):
            return (RunSucceeded(artifact=artifact, result=result),)
        case Fail(failure, attempts):
            again = failure.retryable and run.failed_attempts + 1 < attempts
            return (RunPutBack(failure=failure),) if again else (RunFailed(failure=failure),)
        case Cancel(actor, reason):
            return (RunCancelled(by=actor, reason=reason),)


def evolve(run: Run, fact: RunFact, at: datetime) -> Run:
    """The run after the fact. Raises ValueError for a move that `NEXT` does not know."""
    match fact:
        case RunQueued():
            return run
        case RunTakenUp(attempt=attempt):
            return replace(run, attempt=attempt)
        case StageBegun(status=status):
            return replace(_moved(run, status), progress=0.0)
        case DataRead(content=content):
            return replace(run, content=content)
        case RunPutBack(failure=failure):
            failed = run.failed_attempts + 1
            back = run if run.status is RunStatus.QUEUED else _moved(run, RunStatus.QUEUED)
            return replace(back, progress=0.0, failed_attempts=failed, failure=failure)
        case RunSucceeded(artifact=artifact, result=result):
            done = _moved(run, RunStatus.SUCCEEDED)
            return replace(done, progress=1.0, artifact=artifact, result=result, failure=None, ended_at=at)
        case RunFailed(failure=failure):
            return replace(_moved(run, RunStatus.FAILED), failure=failure, ended_at=at)
        case RunCancelled(by=by, reason=reason):
            return replace(_moved(run, RunStatus.CANCELLED), ended_at=at, cancelled_by=by, cancel_reason=reason)


def _moved(run: Run, status: RunStatus) -> Run:
    if status not in NEXT[run.status]:
        raise ValueError(f"a run that is {run.status} cannot become {status}")
    return replace(run, status=status)
