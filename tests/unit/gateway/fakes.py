"""Stand-ins for the gateway's ports, and shorthands for its events."""

import hashlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.content import Content
from services.contracts.events import DeploymentChanged, Event, ReplicaReported, ReplicaVersion, Role, Target
from services.contracts.tasks import CLASSIFICATION, TASKS
from services.contracts.tasks.classification import ClassificationRequest, ClassificationResult, LabelScore, Prediction
from services.contracts.tasks.stream import PredictEvent, Result
from services.contracts.tasks.task import AnswerInfo
from services.gateway.domain.requests import Predict
from services.gateway.domain.routing import Replica, RoutingTable
from services.gateway.domain.statistics import Statistics
from services.gateway.ports import Policy, Ports, ReplicaRequest
from services.kit.core.clock import VirtualClock
from services.kit.core.idempotency import IdempotencyKey, KeyReused
from services.kit.core.ids import SeededIds
from services.kit.identity.keys import KeyRecord, NewKey
from tests.unit.gateway.dead_letter_log import DeadLetterLog

ARTIFACT = ArtifactRef(uri="file:///nowhere", digest="0" * 64, signer="test", size_bytes=1)


def target(version: int, role: Role = Role.PRIMARY, weight: int = 100) -> Target:
    return Target(version=version, artifact=ARTIFACT, precision=Precision.INT8, role=role, weight=weight)


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


def command(texts: Sequence[str] = ("a text",), **changes: Any) -> Predict:
    """A request to classify; `truncate` and `with_embeddings` are of the task, the rest of the command."""
    ours = {name: changes.pop(name) for name in ("with_embeddings", "truncate") if name in changes}
    sent: dict[str, Any] = {
        "tenant": "default",
        "deployment": "news",
        "task": CLASSIFICATION,
        "request": ClassificationRequest(texts, **ours),
        "request_id": "req-1",
        "deadline": 30.0,
        **changes,
    }
    return Predict(**sent)


def texts_of(request: ReplicaRequest) -> Sequence[str]:
    texts: Sequence[str] = TASKS.named(request.task).decode(request.payload).texts
    return texts


def answered(request: ReplicaRequest) -> Result:
    scores = (LabelScore("dev", 0.75), LabelScore("data", 0.25))
    result = ClassificationResult([Prediction("dev", 0.75, scores) for _ in texts_of(request)])
    info = AnswerInfo(request.request_id, request.deployment, "news", request.version, tokens=7)
    return Result(CLASSIFICATION.encode_result(result, info), "news", request.version, tokens=7)


Behaviour = Callable[[str, ReplicaRequest], Result]


@dataclass
class FakeReplicas:
    """Every replica that is kept can be reached; `behaviour` answers or raises."""

    behaviour: Behaviour = field(default=lambda _, request: answered(request))
    loads: dict[str, int | None] = field(default_factory=dict)
    requests: list[tuple[str, ReplicaRequest]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)

    def keep(self, replicas: Iterable[Replica]) -> None:
        self.stored = [replica.id for replica in replicas]

    def waiting(self, replica: str) -> int | None:
        return self.loads.get(replica, 0)

    async def predict(self, replica: str, request: ReplicaRequest) -> AsyncGenerator[PredictEvent, None]:
        self.requests.append((replica, request))
        yield self.behaviour(replica, request)


@dataclass
class FakeMirrors:
    sent: list[tuple[str, ReplicaRequest]] = field(default_factory=list)

    def send(self, replica: str, request: ReplicaRequest) -> None:
        self.sent.append((replica, request))


@dataclass
class FakeStore:
    """One transaction at a time; what it held is kept only when it ends well."""

    events: list[tuple[str, Event]] = field(default_factory=list)
    responses: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        events, responses = list(self.events), dict(self.responses)
        try:
            yield self
        except BaseException:
            self.events, self.responses = events, responses
            raise

    async def emit(self, event: Event, *, tenant: str) -> str:
        self.events.append((tenant, event))
        return f"evt-{len(self.events)}"

    async def find_idempotent_response(self, key: IdempotencyKey) -> str | None:
        stored = self.responses.setdefault((key.tenant, key.key), (key.fingerprint, ""))
        if stored[0] != key.fingerprint:
            raise KeyReused
        return stored[1] or None

    async def save_idempotent_response(self, key: IdempotencyKey, answer: str) -> None:
        self.responses[key.tenant, key.key] = (key.fingerprint, answer)

    async def waiting_events(self) -> int:
        return len(self.events)


@dataclass
class FakeUpload:
    """Keeps its content in the shelf's dictionary."""

    stored: dict[str, bytes]
    written: bytes = b""

    async def write(self, chunk: bytes) -> None:
        self.written += chunk

    async def content(self) -> Content:
        return Content(hashlib.sha256(self.written).hexdigest(), len(self.written))

    async def keep(self, tenant: str, dataset: str, form: str) -> tuple[str, bool]:
        uri = f"fake://{tenant}/{dataset}/{(await self.content()).sha256}.{form}"
        there = uri in self.stored
        self.stored[uri] = self.written
        return uri, there


@dataclass
class FakeUploads:
    stored: dict[str, bytes] = field(default_factory=dict)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[FakeUpload]:
        yield FakeUpload(self.stored)


@dataclass
class FakeKeys:
    """A keyring that grants what it is asked for, and remembers by whom."""

    made: list[tuple[NewKey, str]] = field(default_factory=list)
    records: list[KeyRecord] = field(default_factory=list)

    async def create(self, new_key: NewKey, *, by: str) -> tuple[KeyRecord, str]:
        self.made.append((new_key, by))
        self.records.append(KeyRecord(f"key{len(self.records)}", new_key.role, new_key.tenant, new_key.name))
        return self.records[-1], "secret"

    async def list(self, *, tenant: str, with_revoked: bool) -> list[KeyRecord]:
        return [one for one in self.records if tenant in ("", one.tenant)]

    async def revoke(self, key: str, *, tenant: str, by: str, even_if_last: bool) -> KeyRecord:
        return next(one for one in self.records if one.id == key)


@dataclass
class GatewayFleet:
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
            tasks=TASKS,
            uploads=self.uploads,
        )
