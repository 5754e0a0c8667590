"""What the registry's handlers need of the world."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from services.contracts.artifact import ArtifactRef
from services.contracts.events import ReplicaReported
from services.kit.core.clock import Clock
from services.kit.core.hash_chain import HistoryFilter
from services.kit.messaging.envelope import EventRef
from services.kit.persistence.unit_of_work import UnitOfWork
from services.registry.domain import Decided, ModelState, Rules


@dataclass(frozen=True)
class HistoryEntry:
    """One fact of the history, as people read it, with what its hash covers."""

    sequence: int
    tenant: str
    stream: str
    kind: str
    actor: str
    reason: str
    at: datetime | None
    """None where only its place in the chain is told."""
    payload: dict[str, object]
    previous_hash: str
    hash: str


@dataclass(frozen=True)
class KnownDeployment:
    """Which model a deployment serves, and how far it is."""

    name: str
    model: str
    generation: int
    changed_at: datetime


class Tx(UnitOfWork, Protocol):
    async def model(self, tenant: str, name: str) -> ModelState:
        """The state, locked until the transaction ends; that of a model without a history is empty."""
        ...

    async def record(self, cause: EventRef, decided: Decided, at: datetime) -> None:
        """Appends the fact to the history of the cause's tenant and leaves it for `registry.history`."""
        ...

    async def keep(self, tenant: str, state: ModelState) -> None:
        """Updates the tables that are read from."""
        ...

    async def models(self, tenant: str, *, after: str, limit: int) -> list[ModelState]:
        """By name, from the one after `after` on; models without a version are left out."""
        ...

    async def deployments(self, tenant: str, *, after: str = "", limit: int = 10_000) -> list[KnownDeployment]: ...

    async def all_deployments(self) -> list[tuple[str, KnownDeployment]]:
        """Of every tenant, with the tenant."""
        ...

    async def deployment(self, tenant: str, name: str) -> KnownDeployment | None: ...

    async def record_report(self, tenant: str, report: ReplicaReported, at: datetime) -> bool:
        """Remembers the report; False when a newer one of this replica is known."""
        ...

    async def live_replicas(self, tenant: str, since: datetime) -> Sequence[ReplicaReported]:
        """The latest report of each replica heard since then that is not leaving."""
        ...

    async def history(
        self, tenant: str, chosen: HistoryFilter, *, after: int = 0, before: int = 0, limit: int
    ) -> list[HistoryEntry]:
        """Facts with numbers between `after` and `before`; 0 is no end."""
        ...

    async def chain(self, tenant: str, *, after: int, limit: int) -> list[HistoryEntry]:
        """All tenants' facts; of the others nothing but number and hashes."""
        ...

    async def history_head(self) -> tuple[int, str]:
        """Number and hash of the last fact of all tenants, who share the chain."""
        ...

    async def story(self, tenant: str, model: str, until: datetime | None) -> list[tuple[Decided, datetime]]:
        """All facts of one model, in order; those at or before `until` where it is given."""
        ...


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...
    def reading(self) -> AbstractAsyncContextManager[Tx]: ...


class Artifacts(Protocol):
    async def verify(self, ref: ArtifactRef) -> None:
        """Checks hashes and signature. Raises ArtifactRefused, ArtifactStoreDown."""
        ...


@dataclass(frozen=True)
class Ports:
    store: Store
    artifacts: Artifacts
    clock: Clock
    rules: Rules
    replica_timeout: timedelta = timedelta(seconds=15)
    settle: timedelta = timedelta(seconds=10)
