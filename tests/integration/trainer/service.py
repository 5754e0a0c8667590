"""A trainer without a broker: its real store, a virtual clock, and an executor that does as it is told."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import (
    DatasetReady,
    DriftDetected,
    Event,
    FeedbackReceived,
    InferenceLogged,
    Window,
)
from services.contracts.tasks.records import InferenceRecord
from services.contracts.training import Interval, Metrics, SliceScore, VariantReport
from services.kit.core.clock import VirtualClock
from services.kit.core.ids import SeededIds
from services.kit.jobs.timers import TimerLoop
from services.kit.jobs.worker import Worker
from services.kit.messaging.envelope import Envelope, Message, decode
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.sql.tables import OutboxRow
from services.kit.persistence.sql.unit_of_work import columns
from services.kit.service import Service
from services.trainer.app import MIGRATIONS, Adapters, build
from services.trainer.domain.datasets import Example
from services.trainer.domain.spec import (
    INTERRUPTED,
    ChampionRef,
    DataContent,
    Failure,
    Handle,
    Progress,
    RunResult,
    Stage,
    TrainingSpec,
)
from services.trainer.errors import UnknownExecution
from services.trainer.handlers import traffic
from services.trainer.outbound.store import TrainerTx
from services.trainer.ports import Execution, Outcome, Ports
from services.trainer.settings import TrainerSettings
from tests.wiring import beside

E = TypeVar("E", bound=Event)

ARTIFACT = ArtifactRef(uri="file:///store/m/run", digest="0" * 64, signer="key", size_bytes=4096)
DATASET = DatasetReady(dataset="topics-1", uri="file:///data/topics.jsonl", model="topics")
CHAMPION = ChampionRef(version=1, artifact=ARTIFACT, precision=Precision.INT8)
KILLED = Failure(stage=Stage.TRAIN, code="killed", reason="it was killed", retryable=True)


def result_of(run: str) -> RunResult:
    complete = SliceScore(name="all", rows=100, accuracy=0.8, macro_f1=0.8, macro_f1_ci95=Interval(low=0.7, high=0.9))
    variant = VariantReport(
        precision=Precision.FP32, size_bytes=90, macro_f1=0.8, agreement=1, max_difference=0, speedup=1, passed=True
    )
    metrics = Metrics(slices=[complete], tfidf_macro_f1=0.7, train_rows=200, test_rows=100)
    return RunResult(
        run=run,
        data_hash="a" * 64,
        base_model="tiny",
        labels=["a", "b"],
        metrics=metrics,
        variants=[variant],
        comparison=None,
        artifact=ARTIFACT,
        seconds={},
    )


@dataclass
class FakeExecution:
    """An attempt somewhere else: it knows nothing of the service that submitted it."""

    handle: Handle
    started_at: datetime
    active_at: datetime
    progress: list[Progress] = field(default_factory=list)
    outcome: Outcome | None = None


@dataclass
class FakeExecutor:
    """`Executor` whose work has reported every stage at the first poll, and ended as the next of `endings` says.

    After them it succeeds. While it is `held`, work goes on without an end.
    """

    clock: VirtualClock
    endings: list[Failure] = field(default_factory=list)
    specs: list[TrainingSpec] = field(default_factory=list)
    """What was submitted."""
    started: dict[str, FakeExecution] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    polls: int = 0
    held: bool = False
    submitted: Callable[[], Awaitable[None]] | None = None
    """What happens while an attempt is being submitted."""
    polled: Callable[[], Awaitable[None]] | None = None
    content: DataContent | None = None
    """What it says that it read."""

    async def submit(self, spec: TrainingSpec, attempt: int) -> Handle:
        handle = Handle(
            executor="fake",
            tenant=spec.tenant,
            run=spec.run,
            attempt=attempt,
            working_uri=spec.working_uri,
            reference={},
        )
        if handle.execution not in self.started:
            self.specs.append(spec)
            now = self.clock.now()
            made = self.started[handle.execution] = FakeExecution(handle, now, now)
            for stage in Stage:
                read = self.content if stage is Stage.PREPARE else None
                made.progress.append(Progress(at=now, stage=stage, fraction=0.5, message="half", content=read))
            if not self.held:
                self.end(handle.execution)
        if self.submitted is not None:
            await self.submitted()
        return handle

    def end(self, execution: str) -> None:
        made = self.started[execution]
        result = result_of(made.handle.run).model_copy(update={"content": self.content})
        made.outcome = self.endings.pop(0) if self.endings else result

    async def attach(self, handle: Handle) -> None:
        if handle.execution not in self.started:
            raise UnknownExecution(execution=handle.execution)

    async def poll(self, handle: Handle, progress_read: int) -> Execution:
        self.polls += 1
        if self.polled is not None:
            await self.polled()
        made = self.started[handle.execution]
        progress = made.progress[progress_read:]
        return Execution(made.started_at, made.active_at, progress, len(made.progress), made.outcome)

    async def cancel(self, handle: Handle) -> None:
        self.cancelled.append(handle.execution)
        made = self.started.get(handle.execution)
        if made is not None and made.outcome is None:
            made.outcome = Failure(stage=Stage.TRAIN, code=INTERRUPTED, reason="asked to stop", retryable=True)

    async def logs(self, handle: Handle, after: int, limit: int) -> list[str]:
        lines = [f"{step.stage} half" for step in self.started[handle.execution].progress]
        return lines[after : after + limit]

    async def executions(self) -> Sequence[Handle]:
        return [made.handle for made in self.started.values() if made.outcome is None]


@dataclass
class FakeInputs:
    """`RunInputs` that lets every address pass, and keeps the examples."""

    examples: list[Example] = field(default_factory=list)

    async def data(self, tenant: str, uri: str) -> str:
        return uri

    async def write_examples(self, run: str, examples: Sequence[Example]) -> str:
        self.examples = list(examples)
        return f"file:///runs/{run}/examples.jsonl"

    def working_uri(self, run: str) -> str:
        return f"file:///runs/{run}"

    def artifact_store(self) -> str:
        return "file:///store"


@dataclass
class FakeChampions:
    """`Champions` of one model."""

    current: ChampionRef | None = None
    away: Exception | None = None

    async def champion(self, tenant: str, model: str) -> ChampionRef | None:
        if self.away is not None:
            raise self.away
        return self.current


@dataclass
class TrainerFixture:
    """The room and how to push it."""

    store: SqlStore[TrainerTx]
    clock: VirtualClock
    service: Service[Ports]
    executor: FakeExecutor
    champions: FakeChampions
    inputs: FakeInputs
    worker: Worker
    timers: TimerLoop
    made: int = 0

    @property
    def ports(self) -> Ports:
        return self.service.ports

    @ports.setter
    def ports(self, ports: Ports) -> None:
        """Work that begins from now on has these."""
        self.service.ports = ports

    def envelope(self, event: E, *, name: str = "", tenant: str = "default") -> Envelope[E]:
        self.made += 1
        return Envelope(name or f"evt-{self.made}", event, "test", self.clock.now(), tenant, correlation="story-1")

    async def work(self) -> bool:
        """One job, as the worker would."""
        return await self.worker.run_one()

    async def tick(self, seconds: float = 0.0) -> None:
        """Time passes, and what is due is handled."""
        await self.clock.advance(seconds)
        await self.timers.run_due()

    async def events(self) -> list[Envelope[Event]]:
        """Every event in the outbox, in order."""
        async with self.store.reading() as tx:
            rows = (await tx.execute(sa.select(columns(OutboxRow)).order_by(columns(OutboxRow).c.position))).all()
        return [
            decode(Message(row.topic, row.key.encode(), row.value, tuple(row.headers.items())), self.clock.now())
            for row in rows
        ]

    async def traffic(
        self, labelled: int, *, unlabelled: int = 0, start: int = 0, task: str = "classification", **changes: Any
    ) -> None:
        """Texts that clients asked about now, the first of them with a label."""
        records = [
            InferenceRecord(
                **{"request": f"req-{number}", "version": 1, "at": self.clock.now(), "latency_ms": 5, "tokens": 9}
                | {"items": [{"text": f"text {number}", "label": "a"}]}
                | changes
            )
            for number in range(start, start + labelled + unlabelled)
        ]
        logged = InferenceLogged(deployment="topics", model="topics", replica="replica-1", task=task, records=records)
        await traffic.on_inference_logged([self.envelope(logged)], self.ports)
        labels = [
            self.envelope(FeedbackReceived(deployment="topics", request=record.request, label="b"))
            for record in records[:labelled]
        ]
        if labels:
            await traffic.on_feedback_received(labels, self.ports)

    def drift(self) -> DriftDetected:
        window = Window(number=3, rows=200, opened=self.clock.now() - timedelta(seconds=10), closed=self.clock.now())
        return DriftDetected(
            model="topics", deployment="topics", version=1, test="mmd-rbf", statistic=0.2, p_value=0.005, alpha=0.01,
            consecutive=2, window=window, baseline_rows=500, requests_since_quiet=400,
        )  # fmt: skip


@asynccontextmanager
async def opened(url: str, home: Path) -> AsyncIterator[TrainerFixture]:
    database, clock = Database(url, MIGRATIONS), VirtualClock()
    await database.open()
    executor, champions, inputs = FakeExecutor(clock), FakeChampions(), FakeInputs()
    settings = TrainerSettings.model_validate(
        {
            "MILLRACE_HOME": home,
            "minimum_feedback": 30,
            "most_feedback": 100,
            "feedback_wait_hours": 1,
            "retry_seconds": 5.0,
            "examples_limit": 1000,
        }
    )
    adapters = Adapters(**beside(database, clock, SeededIds(7)), champions=champions, executor=executor, inputs=inputs)
    service = build(settings, adapters)
    assert service.timer_loop is not None
    (worker,) = service.workers
    store = cast("SqlStore[TrainerTx]", service.ports.store)
    try:
        yield TrainerFixture(store, clock, service, executor, champions, inputs, worker, service.timer_loop)
    finally:
        await database.close()


def topics(envelopes: Sequence[Envelope[Event]]) -> list[str]:
    return [envelope.event.topic for envelope in envelopes]
