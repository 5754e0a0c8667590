"""Stand-ins for everything the handlers need, each keeping the port's promise in memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.errors import MillraceError
from services.contracts.tasks import TASKS
from services.inference.domain.heads import ENCODER_TASKS, answer
from services.inference.domain.loaded_models import LoadedModels
from services.inference.domain.records import LoggedRequest, Sampling
from services.inference.domain.scoring import EngineEvent, EngineRequest, Loaded, Scored
from services.inference.domain.versions import DesiredDeployment, VersionKey
from services.inference.ports import Bounds, Ports
from services.kit.core.clock import VirtualClock
from services.kit.core.ids import SeededIds
from services.kit.messaging.envelope import EventRef


@dataclass
class FakeEngines:
    """Answers every text with label 'yes' at 0.75; holds requests back while `gate` is closed."""

    engines: set[VersionKey] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: MillraceError | None = None
    load_error: Exception | None = None
    queued: int = 0
    capacity: int = 64

    async def load(self, key: VersionKey, folder: Path, precision: Precision) -> None:
        if self.load_error is not None:
            raise self.load_error
        self.engines.add(key)

    async def warm(self, key: VersionKey) -> None:
        assert key in self.engines

    async def unload(self, key: VersionKey) -> None:
        self.engines.discard(key)

    def loaded(self, key: VersionKey) -> Loaded:
        assert key in self.engines
        return Loaded(["no", "yes"], 16, "cpu", ENCODER_TASKS)

    async def submit(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        await self.gate.wait()
        assert request.key in self.engines
        if self.error is not None:
            raise self.error
        texts = request.request.texts
        scored = [Scored([0.25, 0.75], b"\0\0\x80\x3f", b"\x00\x3c", len(text.split())) for text in texts]
        yield answer(request, scored, ["no", "yes"])


@dataclass
class FakeArtifacts:
    """Fetches from nowhere, after raising what `troubles` holds, one a call."""

    troubles: list[MillraceError] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    stored: set[str] | None = None

    async def fetch(self, ref: ArtifactRef) -> Path:
        self.fetched.append(ref.digest)
        if self.troubles:
            raise self.troubles.pop(0)
        return Path(ref.digest)

    async def prune(self, keep: set[str]) -> None:
        self.stored = keep


@dataclass
class FakeChecker:
    error: MillraceError | None = None

    async def check(self, folder: Path, precision: Precision) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class FakeDesiredState:
    deployments: list[DesiredDeployment] = field(default_factory=list)

    async def load(self) -> list[DesiredDeployment]:
        return self.deployments

    async def save(self, deployments: Sequence[DesiredDeployment]) -> None:
        self.deployments = list(deployments)


@dataclass
class FakeLoadTasks:
    """Tasks as in the real one."""

    tasks: dict[VersionKey, asyncio.Task[None]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def start(self, key: VersionKey, work: Coroutine[Any, Any, None]) -> None:
        if key in self.tasks:
            self.tasks[key].cancel()
        self.tasks[key] = asyncio.create_task(work)

    async def stop(self, key: VersionKey) -> None:
        if key in self.tasks:
            self.tasks[key].cancel()
            await asyncio.wait([self.tasks[key]])

    @asynccontextmanager
    async def load_slot(self) -> AsyncIterator[None]:
        async with self.lock:
            yield


@dataclass
class FakeReporter:
    models: LoadedModels
    reports: list[list[tuple[int, str]]] = field(default_factory=list)

    def changed(self, cause: EventRef | None = None) -> None:
        report = self.models.report(address="h:1", sequence=1, capacity=1, leaving=False)
        self.reports.append([(entry.version, entry.state) for entry in report.versions])


@dataclass
class FakeLog:
    requests: list[LoggedRequest] = field(default_factory=list)

    def add(self, logged: LoggedRequest) -> None:
        self.requests.append(logged)


@dataclass
class ReplicaUnderTest:
    """A replica of fakes around the real roster."""

    models: LoadedModels = field(default_factory=lambda: LoadedModels(replica="r"))
    clock: Any = field(default_factory=VirtualClock)
    engines: FakeEngines = field(default_factory=FakeEngines)
    artifacts: FakeArtifacts = field(default_factory=FakeArtifacts)
    checker: FakeChecker = field(default_factory=FakeChecker)
    desired_state: FakeDesiredState = field(default_factory=FakeDesiredState)
    load_tasks: FakeLoadTasks = field(default_factory=FakeLoadTasks)
    log: FakeLog = field(default_factory=FakeLog)
    observed: list[tuple[str, str, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engines.gate.set()
        self.reporter = FakeReporter(self.models)
        self.ports = Ports(
            models=self.models,
            engines=self.engines,
            artifacts=self.artifacts,
            checker=self.checker,
            desired_state=self.desired_state,
            load_tasks=self.load_tasks,
            reporter=self.reporter,
            log=self.log,
            clock=self.clock,
            ids=SeededIds(0),
            bounds=Bounds(),
            sampling=Sampling(),
            tasks=TASKS,
            observe=lambda *measured: self.observed.append(measured[:-1]),
        )

    async def settle(self) -> None:
        """Lets everything that can run without time passing run."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.5)):
            await self.clock.advance(0.5)
            await self.settle()
