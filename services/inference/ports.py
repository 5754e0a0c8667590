"""What the handlers need from outside, each with its promise."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.tasks import Tasks
from services.inference.domain.loaded_models import LoadedModels
from services.inference.domain.records import LoggedRequest, Sampling
from services.inference.domain.scoring import EngineEvent, EngineRequest, Loaded, Scored, Tokenised
from services.inference.domain.versions import DesiredDeployment, VersionKey
from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.messaging.envelope import EventRef


class Engine(Protocol):
    """Scores one batch on the calling thread; never queues, never retries. Any number of threads may call it."""

    @property
    def loaded(self) -> Loaded: ...

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        """Token ids of each text, cut at the model's maximum length."""
        ...

    def run(self, rows: Sequence[Sequence[int]]) -> list[Scored]:
        """Scores of each row of token ids, in their order. Raises EngineFailed where they are no numbers."""
        ...

    def warm(self, rows: int) -> None:
        """Runs batches of up to `rows` rows, short and long, so that the first request waits for nothing."""
        ...


class Engines(Protocol):
    """The loaded versions, and the bounded queue before them."""

    @property
    def queued(self) -> int:
        """Items that wait or run."""
        ...

    @property
    def capacity(self) -> int:
        """Items held at once before more are refused."""
        ...

    async def load(self, key: VersionKey, folder: Path, precision: Precision) -> None:
        """Raises ArtifactRefused when the engine cannot open it. It answers from now on."""
        ...

    async def warm(self, key: VersionKey) -> None: ...

    async def unload(self, key: VersionKey) -> None:
        """Frees it; nothing happens when it is not loaded."""
        ...

    def loaded(self, key: VersionKey) -> Loaded: ...

    def submit(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Answers the request: any number of chunks, then the whole. How it is batched is the engine's own business.

        Raises QueueFull at once where there is no room, DeadlinePassed, EngineFailed, VersionNotServed, and what the
        task refuses. Whoever stops listening ends the work.
        """
        ...


class Artifacts(Protocol):
    """The artifact store with a local copy."""

    async def fetch(self, ref: ArtifactRef) -> Path:
        """A folder whose files, hash and signature have been checked.

        Raises a refusal for good when they do not fit, and Unavailable when the store does not answer.
        """
        ...

    async def prune(self, keep: set[str]) -> None:
        """Drops the local copies of every artifact but those with these digests."""
        ...


class Checker(Protocol):
    async def check(self, folder: Path, precision: Precision) -> None:
        """Raises ArtifactRefused when the variant must not be loaded here; Unavailable when that cannot be told."""
        ...


class DesiredStateCache(Protocol):
    """The newest known deployments, kept over restarts, so that a replica serves without broker and registry."""

    async def load(self) -> list[DesiredDeployment]:
        """What was saved last; nothing when there is none or it cannot be read."""
        ...

    async def save(self, deployments: Sequence[DesiredDeployment]) -> None:
        """Returns once it is on disk; after a crash it is there whole or not at all."""
        ...


class LoadTasks(Protocol):
    """Owns the work that goes on beside the requests: one job a version at a time."""

    def start(self, key: VersionKey, work: Coroutine[Any, Any, None]) -> None:
        """Replaces what was going on for this version."""
        ...

    async def stop(self, key: VersionKey) -> None:
        """Returns once nothing goes on for this version any more."""
        ...

    def load_slot(self) -> AbstractAsyncContextManager[None]:
        """Held while bringing a version up, so that only one takes memory and cores from serving."""
        ...


class Reporter(Protocol):
    def changed(self, cause: EventRef | None = None) -> None:
        """What this replica serves has changed: a report goes out soon, in the present trace and workflow."""
        ...


class Log(Protocol):
    def add(self, logged: LoggedRequest) -> None:
        """Takes a record for `inference.logged`; never waits and never fails."""
        ...


@dataclass(frozen=True)
class Bounds:
    """What one request may ask for, and how patient the bring-up and the draining are."""

    characters_per_token: int = 32
    default_deadline_seconds: float = 30.0
    longest_deadline_seconds: float = 3_600.0
    bring_up_attempts: int = 6
    drain_grace_seconds: float = 5.0


@dataclass(frozen=True)
class Ports:
    models: LoadedModels
    engines: Engines
    artifacts: Artifacts
    checker: Checker
    desired_state: DesiredStateCache
    load_tasks: LoadTasks
    reporter: Reporter
    log: Log
    clock: Clock
    ids: Ids
    bounds: Bounds
    sampling: Sampling
    tasks: Tasks
    observe: Callable[[str, str, int, str, float], None]
    """Called with deployment, version, outcome and seconds of each request that reached a version."""
    reconciling: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the actual state is brought to the desired one."""
