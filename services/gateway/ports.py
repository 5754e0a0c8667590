"""What the handlers need of the world."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from services.contracts.content import Content
from services.contracts.tasks import Tasks
from services.contracts.tasks.records import Source
from services.contracts.tasks.stream import PredictEvent
from services.gateway.domain.batches import Batch, BatchFact, BatchSpec, Outcome, Part
from services.gateway.domain.dead_letters import DeadLetter, DeadRecord
from services.gateway.domain.limits import Permit
from services.gateway.domain.redelivery import NewestIds
from services.gateway.domain.routing import Replica, RoutingTable
from services.gateway.domain.rows import InputRow
from services.gateway.domain.statistics import Statistics
from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.identity.auth import Principal
from services.kit.identity.keys import KeyRecord, NewKey
from services.kit.messaging.envelope import Message
from services.kit.persistence.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class ReplicaRequest:
    """One request to one replica, in the present trace. `deadline` is a moment of the monotonic clock."""

    tenant: str
    deployment: str
    model: str
    version: int
    request_id: str
    task: str
    payload: bytes
    deadline: float
    source: Source = Source.LIVE
    streams: bool = False
    """Its answer comes in chunks, and may wait long for the first: that says nothing of the replica."""


class Replicas(Protocol):
    """The inference replicas, each behind one persistent stream."""

    def keep(self, replicas: Iterable[Replica]) -> None:
        """From now on these are the replicas; one that is gone ends with its last answer."""
        ...

    def waiting(self, replica: str) -> int | None:
        """Requests that wait on the replica, as far as is known; None when it cannot be reached."""
        ...

    def predict(self, replica: str, request: ReplicaRequest) -> AsyncGenerator[PredictEvent, None]:
        """Asks once and never retries: deltas, if the task has any, and a result. Whoever stops listening cancels it.

        Raises ReplicaLost, ReplicaSilent when nothing comes for too long, ReplicaFull, SlowReader, TimedOut at the
        deadline, and what the replica refuses.
        """
        ...


class Mirrors(Protocol):
    """Requests whose answers no client sees."""

    def send(self, replica: str, request: ReplicaRequest) -> None:
        """Returns at once. Drops the request when too many are under way; a failure is counted, not raised."""
        ...


Metadata = Sequence[tuple[str, str]]


class Upstreams(Protocol):
    """The other services' gRPC endpoints, called with bytes that are passed on as they are."""

    async def call(self, method: str, request: bytes, metadata: Metadata, *, tenant: str, seconds: float) -> bytes:
        """`method` is `/package.Service/Method`. Raises ServiceSilent, and what the service refuses."""
        ...

    def stream(
        self, method: str, request: bytes, metadata: Metadata, *, tenant: str, seconds: float
    ) -> AsyncIterator[bytes]:
        """The answers of a streaming method; raises as `call` does, also in between."""
        ...


class Upload(Protocol):
    """A content on its way into the store, part by part."""

    async def write(self, chunk: bytes) -> None:
        """Raises StoreFull or UploadStoreDown."""
        ...

    async def content(self) -> Content:
        """What was written so far. Raises StoreFull or UploadStoreDown."""
        ...

    async def keep(self, tenant: str, dataset: str, form: str) -> tuple[str, bool]:
        """The content's address once it is whole and on disk, and whether it lay there before."""
        ...


class Uploads(Protocol):
    """The store for contents, each kept once under its hash."""

    def begin(self) -> AbstractAsyncContextManager[Upload]:
        """An upload of which nothing is left when the block ends, unless it was kept. Raises TooManyUploads."""
        ...


class Limiter(Protocol):
    """How much each key may ask; the edge asks it once a request, gRPC's streams once a message."""

    async def admit(self, principal: Principal) -> Permit:
        """Lets one request in, and makes its pass the present one, on which tokens are spent.

        Raises RateLimitExceeded, ConcurrencyLimitExceeded or TokenLimitExceeded; then nothing was counted.
        """
        ...


class Keys(Protocol):
    """The keys that are let in. An empty tenant is every tenant."""

    async def create(self, new_key: NewKey, *, by: str) -> tuple[KeyRecord, str]:
        """The key and its secret, once it is on disk; no secret where the idempotency key had made it before."""
        ...

    async def list(self, *, tenant: str, with_revoked: bool) -> list[KeyRecord]:
        """The oldest first."""
        ...

    async def revoke(self, key: str, *, tenant: str, by: str, even_if_last: bool) -> KeyRecord:
        """Raises UnknownKey (also for another tenant's), LastAdmin or ServiceKeyIsPermanent."""
        ...


@dataclass(frozen=True)
class DeadLetterScan:
    """Records of dead-letter topics without their bodies; `not_read` older ones were too many to hold."""

    records: Sequence[DeadRecord]
    not_read: int = 0


T = TypeVar("T")


class DeadLetterTopics(Protocol):
    """The topics of dead letters. Each method raises DeadLettersNotRead when the broker does not answer in time."""

    async def scan(self, topics: Sequence[str], since: datetime | None) -> DeadLetterScan:
        """Every record up to now of the dead-letter topics of these topics; those written since then or later."""
        ...

    async def read(self, dead_letters: Sequence[DeadLetter], use: Callable[[DeadLetter, bytes], T]) -> list[T]:
        """What `use` makes of each letter and its body, on another thread: bodies may be large.

        All are held at once. A letter that its topic has dropped is left out. Raises what `use` raises.
        """
        ...

    async def newest_ids(self, topics: Sequence[str]) -> NewestIds:
        """Of compacted topics, for each topic and key."""
        ...

    async def send(self, messages: list[Message]) -> None:
        """Returns once the broker has all of them. Raises BrokerDown, TooLarge."""
        ...


class Generator(Protocol):
    """A seeded source of chance; `random.Random` is one."""

    def random(self) -> float: ...
    def getrandbits(self, bits: int, /) -> int: ...


class Tx(UnitOfWork, Protocol):
    async def waiting_events(self) -> int:
        """How many events the outbox holds, or a little more."""
        ...

    async def batch(self, tenant: str, batch: str) -> Batch | None:
        """Locked until the transaction ends, unless that only reads."""
        ...

    async def save_batch(self, batch: Batch, facts: Sequence[BatchFact], *, actor: str, reason: str) -> None: ...

    async def save_part(self, batch: Batch, part: Part) -> None:
        """Keeps the part, and the batch that has grown by it."""
        ...

    async def parts(self, tenant: str, batch: str) -> list[Part]:
        """In their order."""
        ...

    async def batches(self, tenant: str, *, deployment: str, status: str, before: str, limit: int) -> list[Batch]:
        """The newest first; `before` is the last id of the page before."""
        ...

    async def open_batches(self, tenant: str) -> int:
        """How many have not ended."""
        ...


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...
    def reading(self) -> AbstractAsyncContextManager[Tx]: ...


class OpenInput(Protocol):
    """A batch's input while it is read."""

    @property
    def stamp(self) -> str:
        """Another one means that the file is another, or has changed."""
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def read_bytes(self) -> int: ...

    async def take(self, count: int) -> list[InputRow]:
        """The next rows; none at the end. Raises a kind of UnusableData for what cannot be read at all."""
        ...


class Inputs(Protocol):
    """Files that batches are made of."""

    async def check(self, uri: str, tenant: str) -> None:
        """Raises a kind of UnusableData for an address that may not be read, or where no file lies."""
        ...

    def open(self, spec: BatchSpec, tenant: str) -> AbstractAsyncContextManager[OpenInput]:
        """Raises a kind of UnusableData."""
        ...


class Results(Protocol):
    """Where batches write. Every call may raise ResultsDown."""

    async def write_part(self, batch: Batch, part: Part, content: bytes) -> None:
        """Whole and on disk when it returns."""
        ...

    async def join(self, batch: Batch, parts: Sequence[Part], fence: int) -> Outcome:
        """All parts as one file, with its manifest beside it. Raises ResultsDamaged."""
        ...

    async def tidy(self, batch: Batch) -> None:
        """Removes what the batch wrote, its outcome excepted. Never fails."""
        ...

    def read(self, outcome: Outcome) -> AsyncIterator[bytes]:
        """The output, in chunks that end anywhere."""
        ...


@dataclass(frozen=True)
class BatchPolicy:
    part_rows: int = 256
    texts: int = 16
    """Asked about in one request."""
    requests: int = 2
    """Of one batch, under way at once."""
    lease_seconds: float = 10.0
    open_limit: int = 100
    """Batches of one tenant that have not ended."""


@dataclass(frozen=True)
class Batching:
    """What batches need beside what every request does."""

    inputs: Inputs
    results: Results
    policy: BatchPolicy
    wake: Callable[[], None]
    """Tells the workers that a batch is queued."""


@dataclass(frozen=True)
class Policy:
    """How long the gateway bears with its replicas, and how much it keeps for the broker."""

    text_limit_chars: int = 10_000
    stream_seconds: float = 300.0
    """The longest an answer that comes in chunks may take."""
    ready_wait_seconds: float = 5.0
    ready_poll_seconds: float = 0.05
    retry_after_seconds: float = 1.0
    attempts: int = 3
    chunks_at_once: int = 4
    outbox_limit: int = 100_000
    outbox_retry_seconds: float = 10.0
    upload_limit_bytes: int = 268_435_456


@dataclass(frozen=True)
class RetryLimits:
    """How much of the replicas those may take whom nobody waits for, and how long they bear with them."""

    concurrency: int = 16
    tenant_concurrency: int = 16
    request_seconds: float = 30.0
    ready_wait_seconds: float = 60.0
    yields_at: int | None = None
    """Where every replica that is ready has so many requests waiting, it gets none of these."""


@dataclass(frozen=True)
class Ports:
    store: Store
    clock: Clock
    ids: Ids
    routes: RoutingTable
    routes_read: Callable[[], bool]
    """Whether the routing table holds everything that was known when the gateway started."""
    replicas: Replicas
    mirrors: Mirrors
    keys: Keys
    dead_letters: DeadLetterTopics
    generator: Generator
    policy: Policy
    uploads: Uploads
    batching: Batching
    tasks: Tasks
    statistics: Statistics = field(default_factory=Statistics)


current_permit: ContextVar[Permit | None] = ContextVar("present_pass", default=None)


def spend(tokens: int) -> None:
    """Charges the present request's key, when the request ends; nobody where it came by no endpoint."""
    passed = current_permit.get()
    if passed is not None:
        passed.tokens += tokens
