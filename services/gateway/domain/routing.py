"""The routing table: which version answers a request, and which replica has it ready.

Pure: it is told of events and of the time (seconds of a monotonic clock), and asked for plans.
Weights come from the registry (`DeploymentChanged`, the latest generation counts), readiness from the
replicas (`ReplicaReported`, the highest sequence counts).
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from services.contracts.events import DeploymentChanged, ReplicaReported, ReplicaVersion, Role, Target
from services.contracts.names import qualified_name
from services.gateway.errors import NothingServed, UnknownDeployment, VersionNotServed

Trace = Mapping[str, str]
"""`traceparent` and `tracestate`, as an event's envelope carries them."""

ServedKey: TypeAlias = tuple[str, str, int]
"""Qualified deployment, model, version: two models of one deployment may have versions of one number."""

LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which versions may answer one request, the chosen one first."""

    key: str
    model: str
    generation: int
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replica:
    """One inference process and the versions it has ready."""

    id: str
    address: str
    sequence: int
    capacity: int
    leaving: bool
    received_at: float
    ready: frozenset[ServedKey]
    unready: Mapping[ServedKey, str] = field(default_factory=dict, compare=False)
    """Of the versions that it has not ready, why."""


@dataclass(frozen=True, slots=True)
class Served:
    """What one deployment has to offer: its versions, the primary first, since the latest change."""

    deployment: str
    model: str
    versions: tuple[int, ...]
    changed_at: datetime


@dataclass(slots=True)
class _Deployment:
    event: DeploymentChanged
    changed_at: datetime
    shares: tuple[tuple[float, int], ...]
    fallback: int | None
    introduced: dict[int, Trace] = field(default_factory=dict)
    served: set[int] = field(default_factory=set)


class RoutingTable:
    """What ought to be served, and who is ready to serve it.

    A replica unheard of for `stale_after_seconds` is used only when no fresh one is left: silence may be
    the broker's fault, and its stream tells whether it lives.
    """

    def __init__(self, *, stale_after_seconds: float) -> None:
        self._stale_after_seconds = stale_after_seconds
        self._deployments: dict[tuple[str, str], _Deployment] = {}
        self._replicas: dict[str, Replica] = {}
        self._ready: dict[ServedKey, tuple[Replica, ...]] = {}
        self._next_replica = 0

    # --- what the events say

    def deployment_changed(
        self, tenant: str, event: DeploymentChanged, trace: Trace, *, at: datetime = LONG_AGO
    ) -> bool:
        """Takes the event's weights; False, and no change, when a generation as late is known already.

        What loads or drains of another model takes no requests, so it is left out. A deployment that was deleted is
        forgotten.
        """
        known = self._deployments.get((tenant, event.deployment))
        if known is not None and known.event.generation >= event.generation:
            return False
        if event.deleted:
            return self._deployments.pop((tenant, event.deployment), None) is not None
        of_model = [target for target in event.targets if target.model in (None, event.model)]
        event = event.model_copy(update={"targets": of_model})
        if known is not None and known.event.model != event.model:
            known = None
        shares, primary = _shares(event.targets), _primary(event.targets)
        entry = _Deployment(event=event, changed_at=at, shares=shares, fallback=primary)
        for target in event.targets:
            entry.introduced[target.version] = known.introduced.get(target.version, trace) if known else trace
        if known is not None:
            entry.served = known.served & set(entry.introduced)
        self._deployments[tenant, event.deployment] = entry
        return True

    def replica_reported(self, event: ReplicaReported, *, at: float) -> bool:
        """Takes the report; False, and no change, when it is older than one taken already.

        A replica that was silent for so long that it counts as gone may begin its sequence anew. Two
        replicas cannot stand at one address: the later report drives the earlier replica out.
        """
        known = self._replicas.get(event.replica)
        if known is not None and known.sequence >= event.sequence and not self.is_stale(known, at=at):
            return False
        for other in [r for r in self._replicas.values() if r.address == event.address and r.id != event.replica]:
            del self._replicas[other.id]
        ready = frozenset(_key(part) for part in event.versions if part.state == "ready")
        self._replicas[event.replica] = Replica(
            id=event.replica,
            address=event.address,
            sequence=event.sequence,
            capacity=event.capacity,
            leaving=event.leaving,
            received_at=at,
            ready=ready,
            unready={
                _key(part): part.reason or f"it is {part.state}" for part in event.versions if part.state != "ready"
            },
        )
        self._index()
        return True

    def forget(self, replica: str) -> None:
        """Drops a replica that is gone for good; a later report brings it back."""
        if self._replicas.pop(replica, None) is not None:
            self._index()

    def _index(self) -> None:
        ready: dict[ServedKey, list[Replica]] = {}
        for replica in self._replicas.values():
            if not replica.leaving:
                for served in replica.ready:
                    ready.setdefault(served, []).append(replica)
        self._ready = {served: tuple(replicas) for served, replicas in ready.items()}

    # --- what a request asks

    def knows(self, tenant: str, deployment: str) -> bool:
        return (tenant, deployment) in self._deployments

    def desired(self, tenant: str, deployment: str) -> DeploymentChanged:
        """What the registry wants served, as it said last. Raises UnknownDeployment."""
        return self._entry(tenant, deployment).event

    def all_desired(self, tenant: str) -> tuple[DeploymentChanged, ...]:
        """The same of each of the tenant's deployments, by name."""
        names = sorted(name for owner, name in self._deployments if owner == tenant)
        return tuple(self._deployments[tenant, name].event for name in names)

    def why_unready(self, key: str, model: str, version: int) -> str:
        """What a replica says of a version that it has not ready; empty where none says anything."""
        reasons = (replica.unready.get((key, model, version)) for replica in self._replicas.values())
        return next((reason for reason in reasons if reason), "")

    def served(self, tenant: str) -> tuple[Served, ...]:
        """What a tenant may ask, by name."""
        entries = [entry for (owner, _), entry in sorted(self._deployments.items()) if owner == tenant]
        return tuple(_served(entry) for entry in entries)

    def is_stale(self, replica: Replica, *, at: float) -> bool:
        return at - replica.received_at > self._stale_after_seconds

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica that has reported and was not forgotten, leaving ones too."""
        return tuple(self._replicas.values())

    def plan(self, tenant: str, deployment: str, *, ticket: float, version: int = 0) -> Plan:
        """The versions to try for the ticket in [0, 1): the one the weights give it, then the primary.

        A canary takes the tickets from 0 on, so that a growing weight keeps those it had. A `version` that is
        asked for is the only one to try. Raises UnknownDeployment, NothingServed or VersionNotServed.
        """
        entry = self._entry(tenant, deployment)
        if all(target.role is Role.DRAINING for target in entry.event.targets):
            raise NothingServed(deployment=deployment)  # what drains gets no new traffic, pinned or not
        if version:
            if all(target.version != version for target in entry.event.targets):
                raise VersionNotServed(version=version, deployment=deployment)
            versions = [version]
        else:
            chosen = next((version for limit, version in entry.shares if ticket < limit), entry.fallback)
            versions = [version for version in (chosen, entry.fallback) if version is not None]
        return Plan(
            key=qualified_name(tenant, deployment),
            model=entry.event.model,
            generation=entry.event.generation,
            versions=tuple(dict.fromkeys(versions)),
        )

    def pick(
        self,
        key: str,
        model: str,
        version: int,
        *,
        at: float,
        load: Callable[[str], int | None],
        without: Collection[str] = (),
    ) -> Replica | None:
        """The least loaded replica that has the place's version ready; None when there is none to ask.

        `load` gives the requests waiting on a replica, or None for one that cannot be reached.
        Equally loaded replicas take turns.
        """
        replicas = self._ready.get((key, model, version), ())
        self._next_replica += 1
        best: Replica | None = None
        best_rank = (True, 0)
        for number in range(len(replicas)):
            replica = replicas[(self._next_replica + number) % len(replicas)]
            waiting = load(replica.id)
            if waiting is None or replica.id in without:
                continue
            rank = (self.is_stale(replica, at=at), waiting)
            if best is None or rank < best_rank:
                best, best_rank = replica, rank
        return best

    def mirror_of(self, tenant: str, deployment: str, version: int, *, ticket: float) -> int | None:
        """The version that answers too, unseen, what `version` answered; None when none should.

        `ticket` in [0, 1) is drawn anew for this: the event's `mirror` is the share of those that do.
        """
        entry = self._deployments.get((tenant, deployment))
        if entry is None or ticket >= entry.event.mirror:
            return None
        others = (t.version for t in entry.event.targets if t.role is not Role.DRAINING and t.version != version)
        return next(others, None)

    # --- the first request that a version serves

    def claim_first(self, tenant: str, deployment: str, version: int) -> Trace | None:
        """The trace of the change that brought the version, to whoever serves it first; None to the others."""
        entry = self._deployments.get((tenant, deployment))
        if entry is None or version in entry.served or version not in entry.introduced:
            return None
        entry.served.add(version)
        return entry.introduced[version] or None

    def release_first(self, tenant: str, deployment: str, version: int) -> None:
        """Gives the claim back: the first request failed."""
        entry = self._deployments.get((tenant, deployment))
        if entry is not None:
            entry.served.discard(version)

    def _entry(self, tenant: str, deployment: str) -> _Deployment:
        entry = self._deployments.get((tenant, deployment))
        if entry is None:
            raise UnknownDeployment(deployment=deployment)
        return entry


def _key(part: ReplicaVersion) -> ServedKey:
    return qualified_name(part.tenant, part.deployment), part.model, part.version


def sticky_ticket(deployment: str, key: str) -> float:
    """A ticket in [0, 1) that is the same for the same key on every gateway, and even over keys."""
    digest = hashlib.blake2b(f"{deployment}\x00{key}".encode(), digest_size=7).digest()
    return int.from_bytes(digest) / 2**56


def _shares(targets: list[Target]) -> tuple[tuple[float, int], ...]:
    """Upper limits of each version's tickets, canaries first; empty when nothing has a weight."""
    weighted = [target for target in targets if target.weight > 0 and target.role is not Role.DRAINING]
    weighted.sort(key=lambda target: (target.role is Role.PRIMARY, target.version))
    total = sum(target.weight for target in weighted)
    shares: list[tuple[float, int]] = []
    passed = 0
    for target in weighted:
        passed += target.weight
        shares.append((passed / total, target.version))
    return tuple(shares)


def _served(entry: _Deployment) -> Served:
    versions = sorted({target.version for target in entry.event.targets}, reverse=True)
    versions.sort(key=lambda version: version != entry.fallback)
    return Served(entry.event.deployment, entry.event.model, tuple(versions), entry.changed_at)


def _primary(targets: list[Target]) -> int | None:
    return next((target.version for target in targets if target.role is Role.PRIMARY), None)
