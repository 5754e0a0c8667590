"""What the handlers need from outside."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from services.contracts.artifact import Precision
from services.contracts.events import Verdict
from services.contracts.tasks import Tasks
from services.kit.core.clock import Clock
from services.kit.persistence.unit_of_work import UnitOfWork
from services.monitor.domain.deployments import ClosedWindow, DeploymentKey, PrimaryVersion, Watch
from services.monitor.domain.drift import DriftPolicy, Floats, WindowVerdict
from services.monitor.domain.observations import Answer, Observation, TimedFeedback
from services.monitor.domain.rollouts import Rollout, RolloutVerdict
from services.monitor.domain.slo import BurnPolicy, Counts, Indicator, Objective
from services.monitor.domain.verdicts import JudgingPolicy
from services.monitor.domain.windows import Sample

T = TypeVar("T")

Minute = tuple[int, datetime]
"""A version, and the start of a minute."""


@dataclass(frozen=True)
class Retention:
    """How much is kept. Answers wait for late feedback and for their pairs; minutes feed objectives and health."""

    answer_hours: float = 24.0
    answers: int = 50_000
    minute_hours: float = 24.0
    inbox_hours: float = 72.0
    windows: int = 500
    verdicts: int = 500


class Tx(UnitOfWork, Protocol):
    """Everything is read and written by tenant and deployment, so that no tenant sees another's."""

    async def lock_deployment(self, key: DeploymentKey) -> None:
        """Held until this transaction ends: feedback and answers that arrive together would miss each other."""
        ...

    async def watch(self, key: DeploymentKey) -> Watch | None: ...
    async def watches(self) -> list[Watch]: ...
    async def save_watch(self, watch: Watch) -> None: ...

    async def rollout(self, key: DeploymentKey) -> Rollout | None:
        """The one that is being judged."""
        ...

    async def save_rollout(self, rollout: Rollout) -> None:
        """Replaces the deployment's current one."""
        ...

    async def drop_rollout(self, key: DeploymentKey) -> None: ...

    async def observations(self, key: DeploymentKey, requests: Mapping[str, int]) -> dict[str, Observation]:
        """Of these requests, with how many items each may have; those without any answer or feedback are left out."""
        ...

    async def observations_since(self, key: DeploymentKey, since: datetime) -> list[Observation]:
        """Of all requests answered from then on."""
        ...

    async def add_answers(self, key: DeploymentKey, answers: Sequence[tuple[str, Answer]]) -> None:
        """Each a request and a version's first answer to it."""
        ...

    async def save_feedback(self, key: DeploymentKey, item: str, feedback: TimedFeedback) -> None:
        """`item` names the item across requests; replaces earlier feedback on it."""
        ...

    async def count(self, key: DeploymentKey, counts: Mapping[Minute, Counts]) -> None:
        """Adds to the minutes."""
        ...

    async def counts(self, key: DeploymentKey, since: datetime) -> dict[int, Counts]:
        """Sums by version over the minutes that began at or after `since`."""
        ...

    async def samples(self, key: DeploymentKey, window: int) -> tuple[Sample, ...]:
        """In the order they came."""
        ...

    async def add_samples(self, key: DeploymentKey, window: int, first: int, samples: Sequence[Sample]) -> None:
        """`first` is the position of the first of them in its window."""
        ...

    async def drop_samples(self, key: DeploymentKey, window: int | None = None) -> None:
        """Of one window, or of all."""
        ...

    async def save_window(self, window: ClosedWindow) -> None: ...
    async def window(self, key: DeploymentKey, number: int) -> ClosedWindow | None: ...

    async def untested(self, key: DeploymentKey, variant: Precision) -> list[int]:
        """Numbers of the variant's closed windows that wait for their test, in order."""
        ...

    async def drop_untested(self, key: DeploymentKey) -> None: ...

    async def drop_answers(self, key: DeploymentKey) -> None:
        """With what was counted of them, and what was breached."""
        ...

    async def tested_windows(
        self, key: DeploymentKey, limit: int, *, before: int = 0, version: int = 0, verdict: WindowVerdict | None = None
    ) -> list[ClosedWindow]:
        """The newest first, with numbers below `before`; 0 is no end, and every version."""
        ...

    async def add_verdict(self, verdict: RolloutVerdict) -> None: ...

    async def verdicts(
        self,
        key: DeploymentKey,
        limit: int,
        *,
        before: int = 0,
        version: int = 0,
        verdict: Verdict | None = None,
        rollout: str = "",
    ) -> list[tuple[int, RolloutVerdict]]:
        """With their numbers, the newest first, below `before`; 0 and empty do not filter."""
        ...

    async def breaches(self, key: DeploymentKey) -> set[tuple[int, Indicator]]:
        """Versions and indicators whose breach was published and that have not recovered."""
        ...

    async def set_breached(self, key: DeploymentKey, version: int, indicator: Indicator, *, breached: bool) -> None: ...

    async def drop_expired(self, now: datetime, retention: Retention) -> None:
        """Drops what is older, or more, than retention keeps."""
        ...


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...

    def reading(self) -> AbstractAsyncContextManager[Tx]:
        """The same queries without a write lock."""
        ...


class Baselines(Protocol):
    """The embeddings of what versions learned from, by each of their variants."""

    async def load(self, primary: PrimaryVersion, variant: Precision) -> Floats:
        """float32 [rows, width] by that very variant. Raises BaselineRefused where it has none, and Unavailable while
        the artifact store is away."""
        ...


class Offload(Protocol):
    """Runs work that would hold up the event loop somewhere else."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


@dataclass(frozen=True)
class Policy:
    """How the monitor judges."""

    drift: DriftPolicy
    judging: JudgingPolicy
    objectives: tuple[Objective, ...]
    burn: BurnPolicy
    retention: Retention
    slow_ms: float
    judge_seconds: float
    repeat_seconds: float
    maintenance_seconds: float
    health_seconds: float
    chunk_records: int


@dataclass(frozen=True)
class Ports:
    store: Store
    clock: Clock
    baselines: Baselines
    offload: Offload
    policy: Policy
    tasks: Tasks
