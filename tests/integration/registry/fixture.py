"""A registry on a real database: events come in one by one, time passes on a virtual clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from services.contracts.artifact import ArtifactRef
from services.contracts.events import (
    DeploymentChanged,
    Event,
    ModelTrained,
    ReplicaReported,
    ReplicaVersion,
    RolloutJudged,
    TrainingFailed,
    Verdict,
)
from services.kit.core.clock import VirtualClock
from services.kit.core.hash_chain import HistoryFilter
from services.kit.core.ids import SystemIds
from services.kit.messaging.envelope import Envelope, Message, decode
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.sql.tables import OutboxRow
from services.kit.persistence.sql.unit_of_work import columns
from services.registry.app import MIGRATIONS, Adapters, build, rules_of
from services.registry.domain.commands import StartRollout
from services.registry.domain.state import Deployment, DeploymentView, ModelView, Rollout
from services.registry.handlers import deployments, history, versions
from services.registry.handlers.changes import WriteOptions
from services.registry.outbound.store import RegistryTx
from services.registry.settings import RegistrySettings
from tests.unit.registry.scenario import EVIDENCE, MODEL, NOON, POLICY, trained
from tests.wiring import beside

E = TypeVar("E", bound=Event)


@dataclass
class FakeArtifacts:
    """`Artifacts` that believes everything but what it is told to refuse."""

    refuses: Exception | None = None
    verified: list[str] = field(default_factory=list)

    async def verify(self, ref: ArtifactRef) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.verified.append(ref.uri)


class Registry:
    """The room under test. `sequence` of reports and ids of events are made up as they are needed."""

    def __init__(self, url: str, home: Path) -> None:
        self.clock, self.artifacts, self.made = VirtualClock(NOON), FakeArtifacts(), 0
        self.database = Database(url, MIGRATIONS)
        settings = RegistrySettings.model_validate(
            {"MILLRACE_HOME": home, "step_timeout_seconds": POLICY.step_timeout_seconds}
        )
        assert rules_of(settings).rollout == POLICY
        adapters = Adapters(**beside(self.database, self.clock, SystemIds()), checker=self.artifacts)
        service = build(settings, adapters)
        assert service.timer_loop is not None
        self.ports, self.loop = service.ports, service.timer_loop
        self.store = cast("SqlStore[RegistryTx]", self.ports.store)

    def envelope(self, event: E, *, tenant: str = "default") -> Envelope[E]:
        self.made += 1
        return Envelope(id=f"e-{self.made}", event=event, source="test", time=self.clock.now(), tenant=tenant)

    async def trains(self, run: str, against: int | None = None, **how: Any) -> Envelope[ModelTrained]:
        envelope = self.envelope(trained(run, against=against, **how))
        await versions.register_version(envelope, self.ports)
        return envelope

    async def fails(self, model: str, run: str) -> None:
        failed = TrainingFailed(
            model=model, run=run, dataset="d", stage="prepare", code="one_class", reason="one", retryable=False
        )
        await versions.record_training_failed(self.envelope(failed), self.ports)

    async def reports(
        self, *ready: int, replica: str = "i-1", sequence: int = 0, seen: int | None = None, leaving: bool = False
    ) -> None:
        self.made += 1
        parts = [ReplicaVersion(deployment=MODEL, model=MODEL, version=number, state="ready") for number in ready]
        if seen is None:
            seen = (await self.deployment()).generation
        report = ReplicaReported(
            replica=replica,
            address="127.0.0.1:1",
            sequence=sequence or self.made,
            generations={MODEL: seen},
            versions=parts,
            capacity=8,
            leaving=leaving,
        )
        await deployments.on_replica_reported(self.envelope(report), self.ports)

    async def judges(self, verdict: Verdict, *, requests: int = 80) -> None:
        rollout = await self.rollout()
        judged = RolloutJudged(
            deployment=MODEL,
            rollout=rollout.id,
            version=rollout.version.version,
            step=rollout.step,
            verdict=verdict,
            requests=requests,
            evidence=[EVIDENCE],
            reason="what the evidence says",
        )
        await deployments.on_rollout_judged(self.envelope(judged), self.ports)

    async def starts(self, version: int, *, skip_gate: bool = False, dry_run: bool = False) -> DeploymentView:
        command = StartRollout(MODEL, version, "admin:1", "because", skip_gate=skip_gate)
        options = WriteOptions(dry_run=dry_run)
        return await deployments.start_rollout(command, str(version), "default", self.ports, options)

    async def wait(self, seconds: float) -> None:
        end = self.clock.now() + timedelta(seconds=seconds)
        while (left := (end - self.clock.now()).total_seconds()) > 0:
            await self.clock.advance(min(5.0, left))
            await self.loop.run_due()

    async def model(self, tenant: str = "default") -> ModelView:
        return await versions.get_model(tenant, MODEL, self.ports)

    async def deployment(self) -> Deployment:
        return (await deployments.get_deployment("default", MODEL, self.ports)).state

    async def rollout(self) -> Rollout:
        rollout = (await self.deployment()).rollout
        assert rollout is not None
        return rollout

    async def published(self, kind: type[E]) -> list[Envelope[E]]:
        """What stands in the outbox of this type, in order."""
        table = columns(OutboxRow)
        query = sa.select(table).where(table.c.topic == kind.topic).order_by(table.c.position)
        async with self.store.reading() as tx:
            rows = list(await tx.execute(query))
        sent = [Message(row.topic, row.key.encode(), row.value, tuple(row.headers.items())) for row in rows]
        return [decode(message, self.clock.now()) for message in sent]  # type: ignore[misc]

    async def desired(self) -> DeploymentChanged:
        return (await self.published(DeploymentChanged))[-1].event

    async def weights(self) -> dict[int, int]:
        return {target.version: target.weight for target in (await self.desired()).targets}

    async def kinds(self) -> Sequence[str]:
        lines = await history.list_history("default", self.ports, HistoryFilter(), limit=1000)
        return [line.kind for line in lines]

    async def serving_one(self) -> None:
        await self.trains("run-1")
        await self.reports(1)

    async def canary_of_two(self) -> None:
        await self.serving_one()
        await self.trains("run-2", against=1)
        await self.reports(1, 2)
