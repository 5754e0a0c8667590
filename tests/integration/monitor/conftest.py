"""A monitor without a broker: its real store, a virtual clock, baselines in memory."""

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import pytest
import sqlalchemy as sa

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import (
    DeploymentChanged,
    Event,
    FeedbackReceived,
    InferenceLogged,
    Role,
    RolloutStep,
    Target,
)
from services.contracts.tasks.records import InferenceRecord, Source
from services.kit.core.clock import VirtualClock
from services.kit.core.ids import SeededIds
from services.kit.jobs.timers import TimerLoop
from services.kit.messaging.envelope import Envelope, Message, decode
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.tables import OutboxRow, TimerRow
from services.kit.persistence.sql.unit_of_work import columns, read_timer
from services.kit.persistence.unit_of_work import Timer
from services.monitor.app import Adapters, build
from services.monitor.domain.deployments import PrimaryVersion
from services.monitor.domain.drift import Floats
from services.monitor.errors import BaselineRefused
from services.monitor.handlers.deployments import on_deployment_changed
from services.monitor.handlers.ingest import on_feedback_received, on_inference_logged
from services.monitor.handlers.maintenance import schedule_maintenance
from services.monitor.outbound.store import MIGRATIONS, MonitorStore
from services.monitor.ports import Ports
from services.monitor.settings import MonitorSettings
from tests.wiring import beside

T = TypeVar("T")
E = TypeVar("E", bound=Event)

WIDTH = 24
DEPLOYMENT = "topics"


class Inputs:
    """Embeddings of unchanged or shifted traffic."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def rows(self, count: int, shift: float = 0.0) -> Floats:
        rows: Floats = self._generator.normal(size=(count, WIDTH)).astype(np.float32)
        rows[:, 0] += shift
        return rows


@dataclass
class FakeBaselines:
    """`Baselines` from a dictionary by version and variant; refuses what is not in it."""

    by_variant: dict[tuple[int, Precision], Floats] = field(default_factory=dict)
    away: Exception | None = None

    async def load(self, primary: PrimaryVersion, variant: Precision) -> Floats:
        if self.away is not None:
            raise self.away
        if (primary.version, variant) not in self.by_variant:
            raise BaselineRefused(version=primary.version, variant=variant, problem="there is none")
        return self.by_variant[primary.version, variant]


async def inline(work: Callable[[], T], /) -> T:
    """`Offload` on the same thread."""
    return work()


@dataclass
class Monitor:
    """The service under test, driven event by event."""

    store: MonitorStore
    clock: VirtualClock
    ports: Ports
    baselines: FakeBaselines
    inputs: Inputs
    loop: TimerLoop
    model: str = "topics"
    """What serves, and answers."""
    made: int = 0
    generation: int = 0

    def envelope(self, event: E, *, tenant: str = "default") -> Envelope[E]:
        self.made += 1
        return Envelope(id=f"e-{self.made}", event=event, source="test", time=self.clock.now(), tenant=tenant)

    async def pass_time(self, seconds: float) -> None:
        """Lets time pass and handles every timer that falls due, in half-second steps."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while self.clock.now() < end:
            await self.clock.advance(0.5)
            await self.loop.run_due()

    async def serve(self, version: int, *, canary: int | None = None, step: int = 0, mirror: float = 1.0) -> None:
        """The registry wants this version served, and maybe a canary beside it."""
        self.generation += 1
        targets = [_target(version, Role.PRIMARY, 90 if canary else 100)]
        rollout = None
        if canary is not None:
            targets.append(_target(canary, Role.CANARY, 10))
            rollout = RolloutStep(rollout=f"r-{canary}", version=canary, state="canary", step=step, steps=2)
        event = DeploymentChanged(
            deployment=DEPLOYMENT,
            model=self.model,
            generation=self.generation,
            targets=targets,
            mirror=mirror if canary else 0.0,
            rollout=rollout,
            reason="test",
        )
        await on_deployment_changed(self.envelope(event), self.ports)

    async def stop(self, draining: int) -> None:
        """The registry wants nothing served; that version drains."""
        self.generation += 1
        event = DeploymentChanged(
            deployment=DEPLOYMENT,
            model=self.model,
            generation=self.generation,
            targets=[_target(draining, Role.DRAINING, 0)],
            reason="test",
        )
        await on_deployment_changed(self.envelope(event), self.ports)

    async def log(self, *records: InferenceRecord) -> Envelope[InferenceLogged]:
        event = InferenceLogged(
            deployment=DEPLOYMENT, model=self.model, replica="i-1", task="classification", records=list(records)
        )
        envelope = self.envelope(event)
        await on_inference_logged([envelope], self.ports)
        return envelope

    async def answer(self, version: int, count: int, *, shift: float = 0.0, variant: Precision | None = None) -> None:
        """`count` requests with inputs of their own, in batches of 50."""
        records = [self.record(version, row=row, variant=variant) for row in self.inputs.rows(count, shift)]
        for start in range(0, count, 50):
            await self.log(*records[start : start + 50])

    def record(
        self,
        version: int,
        *,
        request: str = "",
        row: Floats | None = None,
        label: str = "a",
        mirrored: bool = False,
        failed: bool = False,
        latency_ms: float = 5.0,
        variant: Precision | None = None,
    ) -> InferenceRecord:
        self.made += 1
        item = {} if failed else {"label": label}
        return InferenceRecord(
            request=request or f"q-{self.made}",
            version=version,
            variant=variant,
            source=Source.MIRROR if mirrored else Source.LIVE,
            at=self.clock.now(),
            latency_ms=latency_ms,
            tokens=9,
            outcome="fault" if failed else "ok",
            items=[item | {"text": f"text {self.made}"} if row is not None else item],
            embedding=base64.b64encode(row.astype("<f2").tobytes()).decode() if row is not None else None,
        )

    async def feedback(self, request: str, label: str, *, given_at: datetime | None = None) -> None:
        event = FeedbackReceived(deployment=DEPLOYMENT, request=request, label=label, given_at=given_at)
        await on_feedback_received([self.envelope(event)], self.ports)

    async def timers(self, kind: str) -> list[Timer]:
        """What is set of this kind."""
        table = columns(TimerRow)
        async with self.store.reading() as tx:
            return [read_timer(row) for row in await tx.execute(sa.select(table).where(table.c.kind == kind))]

    async def outbox(self, event: type[E]) -> list[Envelope[E]]:
        """What stands in the outbox of this type, in order."""
        table = columns(OutboxRow)
        query = sa.select(table).where(table.c.topic == event.topic).order_by(table.c.position)
        async with self.store.reading() as tx:
            rows = list(await tx.execute(query))
        messages = [Message(row.topic, row.key.encode(), row.value, tuple(row.headers.items())) for row in rows]
        return [decode(message, self.clock.now()) for message in messages]  # type: ignore[misc]


def _target(version: int, role: Role, weight: int) -> Target:
    artifact = ArtifactRef(uri="file:///a", digest=f"{version:064x}", signer="k", size_bytes=1)
    return Target(version=version, artifact=artifact, precision=Precision.INT8, role=role, weight=weight)


async def opened(url: str, home: Path, clock: VirtualClock, inputs: Inputs, *, seed: int) -> Monitor:
    """A monitor on that database, as its process would begin."""
    database, baselines = Database(url, MIGRATIONS), FakeBaselines()
    settings = MonitorSettings.model_validate({"MILLRACE_HOME": home, "window_rows": 100})
    adapters = Adapters(**beside(database, clock, SeededIds(seed)), baselines=baselines, offload=inline)
    service = build(settings, adapters)
    assert service.timer_loop is not None
    await database.open()
    await schedule_maintenance(service.ports)
    store = cast("MonitorStore", service.ports.store)
    return Monitor(store, clock, service.ports, baselines, inputs, service.timer_loop)


@pytest.fixture
async def monitor(database_url: str, tmp_path: Path) -> AsyncIterator[Monitor]:
    inputs = Inputs(seed=1)
    made = await opened(database_url, tmp_path, VirtualClock(), inputs, seed=1)
    made.baselines.by_variant = {(version, Precision.INT8): inputs.rows(200) for version in (1, 2)}
    yield made
    await made.store.database.close()
