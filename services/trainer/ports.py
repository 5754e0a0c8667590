"""What the trainer's handlers need of the world."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import DatasetReady, InferenceRecord
from services.kit.clock import Clock
from services.kit.ids import Ids
from services.kit.work import UnitOfWork
from services.trainer.domain.datasets import Dataset, DatasetVersion, Example, RetrainingPolicy
from services.trainer.domain.runs import Run, RunFact, RunFilter
from services.trainer.domain.spec import Failure, Progress, RunResult


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

    async def runs(self, tenant: str, wanted: RunFilter, *, before: str, limit: int) -> list[Run]:
        """The newest first, from the one before `before` on."""
        ...

    async def keep_texts(
        self, tenant: str, deployment: str, model: str, records: Sequence[InferenceRecord], *, most: int
    ) -> None:
        """Remembers what was asked, at most `most` texts a deployment. The same record twice is kept once."""
        ...

    async def keep_labels(
        self, tenant: str, deployment: str, labels: Sequence[tuple[str, str]], at: datetime, *, most: int
    ) -> None:
        """Remembers (request, label) pairs, the latest for a request; at most `most` a deployment."""
        ...

    async def labelled(self, tenant: str, model: str, since: datetime, until: datetime, limit: int) -> list[Example]:
        """Texts asked in that time that have a label, at most `limit`, the latest ones, in the order of asking."""
        ...


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...
    def reading(self) -> AbstractAsyncContextManager[Tx]: ...


@dataclass(frozen=True)
class Champion:
    """The version that serves now, and what of it is served."""

    version: int
    artifact: ArtifactRef
    precision: Precision


class Champions(Protocol):
    async def champion(self, tenant: str, model: str) -> Champion | None:
        """None when the model has no champion yet. Raises Unavailable."""
        ...


@dataclass(frozen=True)
class Assignment:
    """One attempt at a run. `fence` makes its files its own: a holder of an older one cannot touch them."""

    run: str
    tenant: str
    fence: int
    dataset: DatasetReady
    examples: Sequence[Example]
    champion: Champion | None


@dataclass(frozen=True)
class Finished:
    """The run's result, and where its signed artifact lies."""

    result: RunResult
    artifact: ArtifactRef


Outcome: TypeAlias = Finished | Failure
Tell: TypeAlias = Callable[[Progress], Awaitable[None]]


class Executor(Protocol):
    async def run(self, assignment: Assignment, tell: Tell) -> Outcome:
        """Runs or resumes the run, telling its progress. When cancelled it stops the work first, then returns.

        What `tell` raises stops the work too. Raises Unavailable when the artifact store does not answer.
        """
        ...


class RunLogs(Protocol):
    async def lines(self, tenant: str, run: str, after: int) -> list[str]:
        """The run's log from line `after` on, counted from 0; none for a run that has not begun."""
        ...


@dataclass(frozen=True)
class Ports:
    store: Store
    clock: Clock
    ids: Ids
    champions: Champions
    executor: Executor
    logs: RunLogs
    retraining: RetrainingPolicy
    wake: Callable[[], None]
    """Tells the worker that a job may wait."""
    lease_seconds: float = 10.0
    attempts: int = 3
    retry_seconds: float = 5.0
    kept_examples: int = 20_000
    code_version: str = "unknown"
