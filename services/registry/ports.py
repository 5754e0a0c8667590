"""What the registry's handlers need of the world."""

from collections.abc import Collection, Sequence
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
from services.registry.domain import Decided, Deployment, ModelState, Rules


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
    """How far a deployment is, without the whole of it."""

    name: str
    generation: int
    deleted: bool
    changed_at: datetime


class Tx(UnitOfWork, Protocol):
    async def model(self, tenant: str, name: str) -> ModelState:
        """The state, locked until the transaction ends; that of a model without a history is empty."""
        ...

    async def deployment(self, tenant: str, name: str) -> Deployment:
        """The state, locked until the transaction ends; that of a deployment without a history is empty.

        Whoever locks a model and deployments locks the model first, then the deployments by name.
        """
        ...

    async def record(self, cause: EventRef, decided: Decided, at: datetime) -> None:
        """Appends the fact to the history of the cause's tenant and leaves it for `registry.history`."""
        ...

    async def save_model(self, tenant: str, state: ModelState) -> None:
        """Updates the table that is read from."""
        ...

    async def save_deployment(self, tenant: str, state: Deployment) -> None:
        """Updates the table that is read from."""
        ...

    async def find_models(self, tenant: str, names: Collection[str]) -> dict[str, ModelState]:
        """Those that have a history, by name; none is locked."""
        ...

    async def find_deployments(self, tenant: str, names: Collection[str]) -> list[Deployment]:
        """Those that have a history, deleted ones too; none is locked."""
        ...

    async def models(self, tenant: str, *, after: str, limit: int) -> list[ModelState]:
        """By name, from the one after `after` on; models without a version are left out."""
        ...

    async def deployments(
        self, tenant: str, *, model: str = "", after: str = "", limit: int = 10_000
    ) -> list[Deployment]:
        """By name, from the one after `after` on, deleted ones left out; with `model`, those that ever served it."""
        ...

    async def known_deployments(self) -> list[tuple[str, KnownDeployment]]:
        """Of every tenant, with the tenant; deleted ones too."""
        ...

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

    async def facts_about(self, tenant: str, model: str, until: datetime | None) -> list[tuple[Decided, datetime]]:
        """All facts of the model and of the deployments that ever served it, in order; until then where it is given."""
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
