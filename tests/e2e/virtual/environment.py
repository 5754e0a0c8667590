"""What outlives the rooms' processes: their files, the bus, the clock, chance, and the settings of the story."""

import random
import shutil
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from services.inference.outbound.desired_state import ReportSequence
from services.kit.core.ids import SeededIds
from services.kit.messaging.envelope import Message
from services.kit.messaging.in_memory import InMemoryBroker
from tests.e2e.virtual.artifact_store import InMemoryArtifactStore
from tests.e2e.virtual.clock import PlatformClock
from tests.e2e.virtual.engines import InMemoryDesiredState
from tests.e2e.virtual.faults import Faults, FragileDatabase
from tests.e2e.virtual.serving import DirectReplicas
from tests.e2e.virtual.training import STAGE_SECONDS, StandInExecution

TENANT: Final = "default"
MODEL: Final = "chapters"
REPLICA: Final = "inference-0"

REGISTRY: Final = {
    "canary_weights": (10, 50),
    "bake_seconds": 2.0,
    "minimum_requests": 30,
    "step_timeout_seconds": 30.0,
    "mirror": 1.0,
    "drain_seconds": 4.0,
    "gate_minimum_test_rows": 100,
}
MONITOR: Final = {"window_rows": 80, "minimum_requests": 30, "slow_ms": 500.0}
TRAINER: Final = {"minimum_feedback": 20, "lease_seconds": 10.0, "poll_seconds": STAGE_SECONDS}
INFERENCE: Final = {
    "replica": REPLICA,
    "device": "cpu",
    "capacity_texts": 64,
    "drain_grace_seconds": 2.0,
    "heartbeat_seconds": 5.0,
}


class Bus(InMemoryBroker):
    """May say every batch twice, as a relay does that was killed after sending; `sent` tells each message once."""

    def __init__(self, *, echo: bool) -> None:
        super().__init__()
        self._echo = echo

    async def send(self, messages: list[Message]) -> None:
        await super().send(messages)
        if self._echo:
            self._pending.extend(messages)

    def latest(self, topics: list[str]) -> list[Message]:
        """What a reader of compacted topics finds at their beginning: the newest message of each key, in order."""
        newest = {(message.topic, message.key): message for message in self.sent if message.topic in topics}
        retained = {id(message) for message in newest.values()}
        return [message for message in self.sent if id(message) in retained]


class CountedReports(ReportSequence):
    """The numbers of a replica's reports, as its file would keep them over a restart."""

    def __init__(self) -> None:
        super().__init__(Path(), datetime.now)  # neither is touched: the numbers stay in memory
        self._given = 0

    async def take(self) -> int:
        self._given += 1
        return self._given


@dataclass
class Environment:
    """One house's own."""

    folder: Path
    common: Path
    """What all houses of a test share: databases that were migrated and never used, and the data sets of a seed, whose
    addresses are part of the story."""
    seed: int
    faults: Faults
    bus: Bus
    clock: PlatformClock = field(default_factory=PlatformClock)
    replicas: DirectReplicas = field(default_factory=DirectReplicas)
    desired_state: InMemoryDesiredState = field(default_factory=InMemoryDesiredState)
    sequence: CountedReports = field(default_factory=CountedReports)
    executions: dict[str, StandInExecution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.artifact_store = InMemoryArtifactStore(self.folder / "artifacts")
        self.generator = random.Random(self.seed)
        """The gateway's chance: a restart does not rewind it."""
        self._ids: dict[str, SeededIds] = {}

    def ids(self, service: str) -> SeededIds:
        """A room's source of names: what it gave out is not given out again after a restart."""
        return self._ids.setdefault(service, SeededIds(self.seed))

    @property
    def data(self) -> Path:
        """Where data sets lie."""
        return self.common / f"datasets-{self.seed}"

    async def database(self, service: str, migrations: Path) -> FragileDatabase:
        """The room's database, open."""
        path = self.folder / f"{service}.db"
        if not path.exists():
            shutil.copyfile(await self._template(service, migrations), path)
        database = FragileDatabase(f"sqlite+aiosqlite:///{path}", migrations, service, self.faults)
        await database.open()
        database.committed.set()  # what an earlier process left behind is looked at first
        return database

    async def _template(self, service: str, migrations: Path) -> Path:
        template = self.common / f"{service}.db"
        if not template.exists():
            made = FragileDatabase(f"sqlite+aiosqlite:///{template}", migrations, service, Faults(0))
            await made.open()
            await made.close()
        return template
