"""What the handlers need of the world."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from services.gateway.domain.limits import Pass
from services.gateway.domain.requests import Answer
from services.gateway.domain.routing import Replica, RoutingTable
from services.gateway.domain.statistics import Statistics
from services.kit.auth import Principal
from services.kit.clock import Clock
from services.kit.ids import Ids
from services.kit.keys import KeyRecord, NewKey
from services.kit.work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Question:
    """One request to one replica. `deadline` is a moment of the monotonic clock."""

    deployment: str
    version: int
    request: str
    texts: Sequence[str]
    traceparent: str
    deadline: float
    mirrored: bool = False
    with_embeddings: bool = False
    whole: bool = False


class Replicas(Protocol):
    """The inference replicas, each behind one persistent stream."""

    def keep(self, replicas: Iterable[Replica]) -> None:
        """From now on these are the replicas; one that is gone ends with its last answer."""
        ...

    def waiting(self, replica: str) -> int | None:
        """Requests that wait on the replica, as far as is known; None when it cannot be reached."""
        ...

    async def ask(self, replica: str, question: Question) -> Answer:
        """Asks once and never retries.

        Raises ReplicaLost, ReplicaSilent, ReplicaFull, TimedOut at the deadline, and what the replica refuses.
        """
        ...


class Mirrors(Protocol):
    """Questions whose answers no client sees."""

    def send(self, replica: str, question: Question) -> None:
        """Returns at once. Drops the question when too many are under way; a failure is counted, not raised."""
        ...


Metadata = Sequence[tuple[str, str]]


class Upstreams(Protocol):
    """The other services' gRPC doors, called with bytes that are passed on as they are."""

    async def call(self, method: str, request: bytes, metadata: Metadata, *, seconds: float) -> bytes:
        """`method` is `/package.Service/Method`. Raises ServiceSilent, and what the service refuses."""
        ...

    def stream(self, method: str, request: bytes, metadata: Metadata, *, seconds: float) -> AsyncIterator[bytes]:
        """The answers of a streaming method; raises as `call` does, also in between."""
        ...


class Limiter(Protocol):
    """How much each key may ask; the door asks it once a request, gRPC's streams once a message."""

    async def admit(self, principal: Principal) -> Pass:
        """Lets one request in, and makes its pass the present one, on which tokens are spent.

        Raises RateLimitExceeded, ConcurrencyLimitExceeded or TokenLimitExceeded; then nothing was counted.
        """
        ...


class Keys(Protocol):
    """The keys that doors let in. An empty tenant is every tenant."""

    async def create(self, wanted: NewKey, *, by: str) -> tuple[KeyRecord, str]:
        """The key and its secret, once it is on disk; no secret where the idempotency key had made it before."""
        ...

    async def list(self, *, tenant: str, with_revoked: bool) -> list[KeyRecord]:
        """The oldest first."""
        ...

    async def revoke(self, key: str, *, tenant: str, by: str, even_if_last: bool) -> KeyRecord:
        """Raises UnknownKey (also for another tenant's), LastAdmin or ServiceKeyKept."""
        ...


class Generator(Protocol):
    """A seeded source of chance; `random.Random` is one."""

    def random(self) -> float: ...
    def getrandbits(self, bits: int, /) -> int: ...


class Tx(UnitOfWork, Protocol):
    async def waiting_events(self) -> int:
        """How many events the outbox holds, or a little more."""
        ...


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...


@dataclass(frozen=True)
class Policy:
    """How patient the gateway is with its replicas, and how much it keeps for the broker."""

    text_limit_chars: int = 10_000
    ready_wait_seconds: float = 5.0
    ready_poll_seconds: float = 0.05
    retry_after_seconds: float = 1.0
    attempts: int = 3
    outbox_limit: int = 100_000
    outbox_retry_seconds: float = 10.0


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
    generator: Generator
    policy: Policy
    statistics: Statistics = field(default_factory=Statistics)
