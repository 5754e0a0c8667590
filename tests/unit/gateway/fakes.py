"""Stand-ins for the gateway's ports, and shorthands for its events."""

import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.content import Content
from services.contracts.events import DeploymentChanged, Event, ReplicaReported, ReplicaVersion, Role, Target
from services.gateway.domain.requests import Answer, LabelScore, Prediction
from services.gateway.domain.routing import Replica, RoutingTable
from services.gateway.domain.statistics import Statistics
from services.gateway.ports import Policy, Ports, Question
from services.kit.core.clock import VirtualClock
from services.kit.core.idempotency import IdempotencyKey, KeyReused
from services.kit.core.ids import SeededIds
from services.kit.identity.keys import KeyRecord, NewKey
from tests.unit.gateway.dead_letter_log import DeadLetterLog

NEWS = ArtifactRef(uri="file:///nowhere", digest="0" * 64, signer="test", size_bytes=1)


def target(version: int, role: Role = Role.PRIMARY, weight: int = 100) -> Target:
    return Target(version=version, artifact=NEWS, precision=Precision.INT8, role=role, weight=weight)


def deployment(*targets: Target, generation: int = 1, mirror: float = 0.0) -> DeploymentChanged:
    return DeploymentChanged(
        deployment="news", model="news", generation=generation, targets=[*targets], mirror=mirror, reason="test"
    )


def report(
    name: str, *ready: int, sequence: int = 1, address: str = "", leaving: bool = False, loading: tuple[int, ...] = ()
) -> ReplicaReported:
    states: list[tuple[int, Any]] = [(number, "ready") for number in ready]
    states += [(number, "loading") for number in loading]
    return ReplicaReported(
        replica=name,
        address=address or f"{name}:1",
        sequence=sequence,
        versions=[
            ReplicaVersion(deployment="news", model="news", version=number, state=state) for number, state in states
        ],
        capacity=8,
        leaving=leaving,
    )


def answered(question: Question) -> Answer:
    scores = (LabelScore("dev", 0.75), LabelScore("data", 0.25))
    predictions = tuple(Prediction("dev", 0.75, scores) for _ in question.texts)
    return Answer(question.request, question.deployment, "news", question.version, predictions, tokens=7)


Behaviour = Callable[[str, Question], Answer]


@dataclass
class FakeReplicas:
    """Every replica that is kept can be reached; `behaviour` answers or raises."""

    behaviour: Behaviour = field(default=lambda _, question: answered(question))
    loads: dict[str, int | None] = field(default_factory=dict)
    asked: list[tuple[str, Question]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def keep(self, replicas: Iterable[Replica]) -> None:
        self.kept = [replica.id for replica in replicas]

    def waiting(self, replica: str) -> int | None:
        return self.loads.get(replica, 0)

    async def ask(self, replica: str, question: Question) -> Answer:
        self.asked.append((replica, question))
        return self.behaviour(replica, question)


@dataclass
class FakeMirrors:
    sent: list[tuple[str, Question]] = field(default_factory=list)

    def send(self, replica: str, question: Question) -> None:
        self.sent.append((replica, question))


@dataclass
class FakeStore:
    """One transaction at a time; what it held is kept only when it ends well."""

    events: list[tuple[str, Event]] = field(default_factory=list)
    receipts: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        events, receipts = list(self.events), dict(self.receipts)
        try:
            yield self
        except BaseException:
            self.events, self.receipts = events, receipts
            raise

    async def emit(self, event: Event, *, tenant: str) -> str:
        self.events.append((tenant, event))
        return f"evt-{len(self.events)}"

    async def find_idempotent_response(self, key: IdempotencyKey) -> str | None:
        kept = self.receipts.setdefault((key.tenant, key.key), (key.fingerprint, ""))
        if kept[0] != key.fingerprint:
            raise KeyReused
        return kept[1] or None

    async def save_idempotent_response(self, key: IdempotencyKey, answer: str) -> None:
        self.receipts[key.tenant, key.key] = (
            key.fingerprint,
            answer,
        )

    async def waiting_events(self) -> int:
        return len(self.events)


@dataclass
class FakeUpload:
    """Keeps its content in the shelf's dictionary."""

    kept: dict[str, bytes]
    written: bytes = b""

    async def write(self, chunk: bytes) -> None:
        self.written += chunk

    async def content(self) -> Content:
        return Content(hashlib.sha256(self.written).hexdigest(), len(self.written))

    async def keep(self, tenant: str, dataset: str, form: str) -> tuple[str, bool]:
        uri = f"fake://{tenant}/{dataset}/{(await self.content()).sha256}.{form}"
        there = uri in self.kept
        self.kept[uri] = self.written
        return uri, there


@dataclass
class FakeUploads:
    kept: dict[str, bytes] = field(default_factory=dict)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[FakeUpload]:
        yield FakeUpload(self.kept)


@dataclass
class FakeKeys:
    """A keyring that grants what it is asked for, and remembers by whom."""

    made: list[tuple[NewKey, str]] = field(default_factory=list)
    records: list[KeyRecord] = field(default_factory=list)

    async def create(self, wanted: NewKey, *, by: str) -> tuple[KeyRecord, str]:
        self.made.append((wanted, by))
        self.records.append(KeyRecord(f"key{len(self.records)}", wanted.role, wanted.tenant, wanted.name))
        return self.records[-1], "secret"

    async def list(self, *, tenant: str, with_revoked: bool) -> list[KeyRecord]:
        return [one for one in self.records if tenant in ("", one.tenant)]

    async def revoke(self, key: str, *, tenant: str, by: str, even_if_last: bool) -> KeyRecord:
        return next(one for one in self.records if one.id == key)


@dataclass
class World:
    """The ports, and what stands behind them."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    replicas: FakeReplicas = field(default_factory=FakeReplicas)
    mirrors: FakeMirrors = field(default_factory=FakeMirrors)
    store: FakeStore = field(default_factory=FakeStore)
    keys: FakeKeys = field(default_factory=FakeKeys)
    dead_letters: DeadLetterLog = field(default_factory=DeadLetterLog)
    routes: RoutingTable = field(default_factory=lambda: RoutingTable(stale_after_seconds=15.0))
    routes_read: bool = True
    ids: SeededIds = field(default_factory=lambda: SeededIds(7))
    policy: Policy = field(default_factory=Policy)
    statistics: Statistics = field(default_factory=Statistics)
    batching: Any = None
    uploads: FakeUploads = field(default_factory=FakeUploads)

    @property
    def ports(self) -> Ports:
        store: Any = self.store
        return Ports(
            store=store,
            clock=self.clock,
            ids=self.ids,
            routes=self.routes,
            routes_read=lambda: self.routes_read,
            replicas=self.replicas,
            mirrors=self.mirrors,
            dead_letters=self.dead_letters,
            keys=self.keys,
            generator=random.Random(7),
            policy=self.policy,
            statistics=self.statistics,
            batching=self.batching,
            uploads=self.uploads,
        )
