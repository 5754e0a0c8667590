"""A trainer without a broker: its real store, a virtual clock, and an executor that does as it is told."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import (
    DatasetReady,
    DriftDetected,
    Event,
    FeedbackReceived,
    InferenceLogged,
    InferenceRecord,
    Window,
)
from services.contracts.training import Interval, Metrics, SliceScore, VariantReport
from services.kit.clock import VirtualClock
from services.kit.envelope import Envelope, Message, decode
from services.kit.ids import SeededIds
from services.kit.jobs import Worker
from services.kit.sql.database import Database
from services.kit.sql.store import SqlStore
from services.kit.sql.tables import OutboxRow
from services.kit.sql.work import columns
from services.kit.timers import TimerLoop
from services.kit.work import Job
from services.trainer.app import MIGRATIONS
from services.trainer.domain.datasets import RetrainingPolicy
from services.trainer.domain.spec import DataContent, Failure, Progress, RunResult, Stage
from services.trainer.handlers import running, traffic
from services.trainer.inbound.events import timer_handlers
from services.trainer.outbound.store import TrainerTx
from services.trainer.ports import Assignment, Champion, Finished, Outcome, Ports, Tell

E = TypeVar("E", bound=Event)

ARTIFACT = ArtifactRef(uri="file:///store/m/run", digest="0" * 64, signer="key", size_bytes=4096)
DATASET = DatasetReady(dataset="topics-1", uri="file:///data/topics.jsonl", model="topics")
KILLED = Failure(stage=Stage.TRAIN, code="killed", reason="it was killed", retryable=True)


def result_of(run: str) -> RunResult:
    whole = SliceScore(name="all", rows=100, accuracy=0.8, macro_f1=0.8, macro_f1_ci95=Interval(low=0.7, high=0.9))
    variant = VariantReport(
        precision=Precision.FP32, size_bytes=90, macro_f1=0.8, agreement=1, max_difference=0, speedup=1, passed=True
    )
    metrics = Metrics(slices=[whole], tfidf_macro_f1=0.7, train_rows=200, test_rows=100)
    return RunResult(
        run=run,
        data_hash="a" * 64,
        base_model="tiny",
        labels=["a", "b"],
        metrics=metrics,
        variants=[variant],
        comparison=None,
        seconds={},
    )


@dataclass
class FakeExecutor:
    """`Executor` that tells every stage, then ends as the next of `endings` says; after them it succeeds."""

    clock: VirtualClock
    endings: list[Failure] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    content: DataContent | None = None
    """What it says that it read."""

    async def run(self, assignment: Assignment, tell: Tell) -> Outcome:
        self.assignments.append(assignment)
        for stage in Stage:
            read = self.content if stage is Stage.PREPARE else None
            await tell(Progress(at=self.clock.now(), stage=stage, fraction=0.5, message="half", content=read))
            self.log.append(f"{stage} half")
        if self.endings:
            return self.endings.pop(0)
        return Finished(result_of(assignment.run).model_copy(update={"content": self.content}), ARTIFACT)

    async def lines(self, tenant: str, run: str, after: int) -> list[str]:
        return self.log[after:]


@dataclass
class FakeChampions:
    """`Champions` of one model."""

    present: Champion | None = None
    away: Exception | None = None

    async def champion(self, tenant: str, model: str) -> Champion | None:
        if self.away is not None:
            raise self.away
        return self.present


@dataclass
class Room:
    """The room and how to push it."""

    store: SqlStore[TrainerTx]
    clock: VirtualClock
    ports: Ports
    executor: FakeExecutor
    champions: FakeChampions
    events: int = 0

    def envelope(self, event: E, *, name: str = "", tenant: str = "default") -> Envelope[E]:
        self.events += 1
        return Envelope(name or f"evt-{self.events}", event, "test", self.clock.now(), tenant, correlation="story-1")

    async def work(self) -> bool:
        """One job, as the worker would."""
        worker = Worker(self.store, self._work, kind=running.RUN_JOB, owner="w", lease_seconds=10, clock=self.clock)
        return await worker.run_one()

    async def tick(self, seconds: float = 0.0) -> None:
        """Time passes, and what is due is handled."""
        await self.clock.advance(seconds)
        await TimerLoop(self.store, timer_handlers(self.ports), self.clock).run_due()

    async def told(self) -> list[Envelope[Event]]:
        """Every event in the outbox, in order."""
        async with self.store.reading() as tx:
            rows = (await tx.execute(sa.select(columns(OutboxRow)).order_by(columns(OutboxRow).c.position))).all()
        return [
            decode(Message(row.topic, row.key.encode(), row.value, tuple(row.headers.items())), self.clock.now())
            for row in rows
        ]

    async def traffic(self, labelled: int, *, unlabelled: int = 0, start: int = 0, **changes: Any) -> None:
        """Texts that clients asked about now, the first of them with a label."""
        records = [
            InferenceRecord(
                **{"request": f"req-{number}", "version": 1, "at": self.clock.now(), "latency_ms": 5, "tokens": 9}
                | {"text": f"text {number}", "label": "a"}
                | changes
            )
            for number in range(start, start + labelled + unlabelled)
        ]
        logged = InferenceLogged(deployment="topics", model="topics", replica="replica-1", records=records)
        await traffic.keep_texts([self.envelope(logged)], self.ports)
        labels = [
            self.envelope(FeedbackReceived(deployment="topics", request=record.request, label="b"))
            for record in records[:labelled]
        ]
        if labels:
            await traffic.keep_labels(labels, self.ports)

    def drift(self) -> DriftDetected:
        window = Window(number=3, rows=200, opened=self.clock.now() - timedelta(seconds=10), closed=self.clock.now())
        return DriftDetected(
            model="topics", deployment="topics", version=1, test="mmd-rbf", statistic=0.2, p_value=0.005, alpha=0.01,
            consecutive=2, window=window, baseline_rows=500, requests_since_quiet=400,
        )  # fmt: skip

    async def _work(self, job: Job) -> None:
        await running.work_run(job, self.ports)


@asynccontextmanager
async def opened(url: str, *, kept_examples: int = 1000) -> AsyncIterator[Room]:
    clock, ids = VirtualClock(), SeededIds(7)
    database = Database(url, MIGRATIONS)
    await database.open()

    def begin(session: AsyncSession) -> TrainerTx:
        return TrainerTx(session, clock=clock, ids=ids, source="millrace/trainer")

    store = SqlStore(database, begin)
    executor, champions = FakeExecutor(clock), FakeChampions()
    ports = Ports(
        store=store,
        clock=clock,
        ids=ids,
        champions=champions,
        executor=executor,
        logs=executor,
        retraining=RetrainingPolicy(30, 100, poll_seconds=1, patience_seconds=3600),
        wake=lambda: None,
        retry_seconds=5.0,
        kept_examples=kept_examples,
    )
    try:
        yield Room(store, clock, ports, executor, champions)
    finally:
        await database.close()


def topics(envelopes: Sequence[Envelope[Event]]) -> list[str]:
    return [envelope.event.topic for envelope in envelopes]
