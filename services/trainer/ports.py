"""What the trainer's handlers need of the world."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.persistence.unit_of_work import UnitOfWork
from services.trainer.domain.datasets import Dataset, DatasetVersion, Example, RetrainingPolicy
from services.trainer.domain.runs import Run, RunFact, RunFilter
from services.trainer.domain.spec import (
    ChampionRef,
    ExecutionPolicy,
    Failure,
    Handle,
    Progress,
    RunPolicy,
    RunResult,
    TrainingSpec,
)


@dataclass(frozen=True)
class SeenText:
    """A text that a client had classified, under its item's key."""

    item: str
    text: str
    at: datetime


@dataclass(frozen=True)
class GivenLabel:
    """What somebody said an item's label is, and when."""

    item: str
    label: str
    at: datetime


class Tx(UnitOfWork, Protocol):
    async def dataset(self, tenant: str, name: str) -> Dataset | None: ...

    async def latest_dataset(self, tenant: str, model: str) -> Dataset | None:
        """The one announced last for this model."""
        ...

    async def save_dataset(self, dataset: Dataset) -> None: ...

    async def datasets(self, tenant: str, *, after: str, limit: int) -> list[Dataset]:
        """By name, from the one after `after` on."""
        ...

    async def version(self, tenant: str, dataset: str, content_hash: str) -> DatasetVersion | None: ...

    async def save_version(self, version: DatasetVersion) -> None: ...

    async def versions(
        self, tenant: str, dataset: str, *, after: DatasetVersion | None, limit: int
    ) -> list[DatasetVersion]:
        """The one that was first seen last comes first, from the one after `after` on."""
        ...

    async def versions_like(self, tenant: str, dataset: str, beginning: str, *, limit: int) -> list[DatasetVersion]:
        """Those whose hash begins so, at most `limit`."""
        ...

    async def run(self, tenant: str, run: str) -> Run | None:
        """Locked until the transaction ends, where the database locks rows."""
        ...

    async def save_run(self, run: Run, facts: Sequence[RunFact], *, actor: str, reason: str, at: datetime) -> None:
        """Keeps the run as it stands and appends the facts to the history."""
        ...

    async def runs(self, tenant: str, run_filter: RunFilter, *, before: str, limit: int) -> list[Run]:
        """The newest first, from the one before `before` on."""
        ...

    async def save_texts(
        self, tenant: str, deployment: str, model: str, texts: Sequence[SeenText], *, most: int
    ) -> None:
        """Remembers what was asked, at most `most` texts a deployment. The same item twice is kept once."""
        ...

    async def save_labels(self, tenant: str, deployment: str, labels: Sequence[GivenLabel], *, most: int) -> None:
        """Remembers of each item the label that was given last; at most `most` a deployment."""
        ...

    async def labelled(self, tenant: str, model: str, since: datetime, until: datetime, limit: int) -> list[Example]:
        """Texts asked in that time that have a label, at most `limit`, the latest ones, in the order of asking."""
        ...


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...
    def reading(self) -> AbstractAsyncContextManager[Tx]: ...


class Champions(Protocol):
    async def champion(self, tenant: str, model: str) -> ChampionRef | None:
        """None when the model has no champion yet. Raises Unavailable."""
        ...


class RunInputs(Protocol):
    """Where a run's inputs lie, and where it may work."""

    async def data(self, tenant: str, uri: str) -> str:
        """The data set's own address, links resolved. Raises a kind of UnusableData where it may not be read."""
        ...

    async def write_examples(self, run: str, examples: Sequence[Example]) -> str:
        """The address of the labelled traffic, as rows. Writing it again replaces it."""
        ...

    def working_uri(self, run: str) -> str: ...

    def artifact_store(self) -> str: ...


Outcome: TypeAlias = RunResult | Failure


@dataclass(frozen=True)
class Execution:
    """An attempt as the executor sees it."""

    started_at: datetime
    active_at: datetime
    """When it last showed progress; its start, before it has."""
    progress: Sequence[Progress] = ()
    """What it reported since the poll before, in order."""
    progress_read: int = 0
    """What the next poll is to be asked with."""
    outcome: Outcome | None = None
    """None while it is under way."""


class Executor(Protocol):
    """Runs attempts somewhere: in a process here, by torchrun or Ray, as a job of Kubernetes.

    What runs belongs to no process of the trainer: it goes on when the service that submitted it ends, and every
    process that has the handle may ask about it. All methods may be repeated.
    """

    async def submit(self, spec: TrainingSpec, attempt: int) -> Handle:
        """Starts the attempt, from where the one before it got to. One that was submitted before is not started again.

        Raises Unavailable when nothing can be started now.
        """
        ...

    async def attach(self, handle: Handle) -> None:
        """Makes sure that the execution can be polled from here. Raises UnknownExecution without a trace of it."""
        ...

    async def poll(self, handle: Handle, progress_read: int) -> Execution:
        """How it stands, without waiting, with what it reported after `progress_read`.

        The outcome comes with the last of that. What was killed, and so left none, is a retryable Failure.
        """
        ...

    async def cancel(self, handle: Handle) -> None:
        """Asks the work to stop at its next step, then ends it with all that it started. Returns when it has ended."""
        ...

    async def logs(self, handle: Handle, after: int, limit: int) -> list[str]:
        """At most `limit` lines from line `after` on, counted from 0, attempts before this one included."""
        ...

    async def executions(self) -> Sequence[Handle]:
        """Every execution that is under way, whoever submitted it."""
        ...


@dataclass(frozen=True)
class Ports:
    store: Store
    clock: Clock
    ids: Ids
    champions: Champions
    executor: Executor
    inputs: RunInputs
    retraining: RetrainingPolicy
    wake: Callable[[], None]
    """Tells the worker that a job may wait."""
    lease_seconds: float = 10.0
    training: RunPolicy = RunPolicy()
    execution: ExecutionPolicy = ExecutionPolicy()
    examples_limit: int = 20_000
    code_version: str = "unknown"
