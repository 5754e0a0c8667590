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
from services.inference.domain.records import LoggedRequest, Sampling
from services.inference.domain.roster import Roster
from services.inference.domain.scoring import EngineEvent, EngineRequest, Loaded, Scored
from services.inference.domain.versions import VersionKey, Wish
from services.inference.ports import Bounds, Ports
from services.kit.core.clock import VirtualClock
from services.kit.core.ids import SeededIds
from services.kit.messaging.envelope import EventRef


@dataclass
class FakeEngines:
    """Answers every text with label 'yes' at 0.75; holds requests back while `gate` is closed."""

    engines: set[VersionKey] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: MillraceError | None = None
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
        if self.refusal is not None:
            raise self.refusal
        texts = request.request.texts
        scored = [Scored([0.25, 0.75], b"\0\0\x80\x3f", b"\x00\x3c", len(text.split())) for text in texts]
        yield answer(request, scored, ["no", "yes"])


@dataclass
class FakeArtifacts:
    """Fetches from nowhere, after raising what `troubles` holds, one a call."""

    troubles: list[MillraceError] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    kept: set[str] | None = None

    async def fetch(self, ref: ArtifactRef) -> Path:
        self.fetched.append(ref.digest)
        if self.troubles:
            raise self.troubles.pop(0)
        return Path(ref.digest)

    async def prune(self, keep: set[str]) -> None:
        self.kept = keep


@dataclass
class FakeChecker:
    refusal: MillraceError | None = None

    async def check(self, folder: Path, precision: Precision) -> None:
        if self.refusal is not None:
            raise self.refusal


@dataclass
class FakeRemembered:
    wishes: list[Wish] = field(default_factory=list)

    async def load(self) -> list[Wish]:
        return self.wishes

    async def save(self, wishes: Sequence[Wish]) -> None:
        self.wishes = list(wishes)


@dataclass
class FakeCrew:
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
    async def turn(self) -> AsyncIterator[None]:
        async with self.lock:
            yield


@dataclass
class FakeReporter:
    roster: Roster
    told: list[list[tuple[int, str]]] = field(default_factory=list)

    def changed(self, cause: EventRef | None = None) -> None:
        report = self.roster.report(address="h:1", sequence=1, capacity=1, leaving=False)
        self.told.append([(entry.version, entry.state) for entry in report.versions])


@dataclass
class FakeLog:
    requests: list[LoggedRequest] = field(default_factory=list)

    def add(self, logged: LoggedRequest) -> None:
        self.requests.append(logged)


@dataclass
class Room:
    """A replica of fakes around the real roster."""

    roster: Roster = field(default_factory=lambda: Roster(replica="r"))
    clock: Any = field(default_factory=VirtualClock)
    engines: FakeEngines = field(default_factory=FakeEngines)
    artifacts: FakeArtifacts = field(default_factory=FakeArtifacts)
    checker: FakeChecker = field(default_factory=FakeChecker)
    remembered: FakeRemembered = field(default_factory=FakeRemembered)
    crew: FakeCrew = field(default_factory=FakeCrew)
    log: FakeLog = field(default_factory=FakeLog)
    observed: list[tuple[str, str, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engines.gate.set()
        self.reporter = FakeReporter(self.roster)
        self.ports = Ports(
            roster=self.roster,
            engines=self.engines,
            artifacts=self.artifacts,
            checker=self.checker,
            remembered=self.remembered,
            crew=self.crew,
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
