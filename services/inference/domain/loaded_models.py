"""What is wanted, what is held, and what to do about the difference. No clock, no files, no threads."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from services.contracts.artifact import Device
from services.contracts.events import DeploymentChanged, ReplicaReported, ReplicaVersion, Role
from services.contracts.names import DEFAULT_TENANT, qualified_name
from services.inference.domain.peers import Peers
from services.inference.domain.versions import (
    COMING_UP,
    ActualVersion,
    DesiredDeployment,
    DesiredVersion,
    State,
    VersionKey,
    desired_versions,
    move,
)
from services.inference.errors import UnknownDeployment, VersionNotServed


@dataclass(frozen=True, slots=True)
class BringUp:
    """Fetch, check, load and warm this version."""

    desired: DesiredVersion


@dataclass(frozen=True, slots=True)
class CancelLoad:
    """Stop bringing this version up; nothing wants it any more."""

    key: VersionKey


@dataclass(frozen=True, slots=True)
class Drain:
    """Unload this version once its last request has ended."""

    key: VersionKey


@dataclass(frozen=True, slots=True)
class Undrain:
    """Wanted again before it was unloaded: it serves on."""

    key: VersionKey


@dataclass(frozen=True, slots=True)
class Forget:
    """Failed and not wanted any more: drop the entry."""

    key: VersionKey


Action: TypeAlias = BringUp | CancelLoad | Drain | Undrain | Forget


def decide(desired: Iterable[DesiredVersion], actual: Iterable[ActualVersion]) -> list[Action]:
    """What brings `held` to `wanted`: releases first, then bring-ups with primaries before canaries.

    A version whose role is draining is wanted only as long as it is loaded: it is never brought up for that.
    """
    entries = {entry.key: entry for entry in actual}
    needed = {item.key: item for item in desired if item.role is not Role.DRAINING}
    actions: list[Action] = []
    for key, entry in entries.items():
        if key in needed:
            if entry.state is State.DRAINING:
                actions.append(Undrain(key))
        elif entry.state is State.READY:
            actions.append(Drain(key))
        elif entry.state in COMING_UP:
            actions.append(CancelLoad(key))
        elif entry.state is State.FAILED:
            actions.append(Forget(key))
    missing = [item for key, item in needed.items() if key not in entries or _may_try_again(entries[key])]
    missing.sort(key=lambda item: item.role is not Role.PRIMARY)
    return actions + [BringUp(item) for item in missing]


def _may_try_again(entry: ActualVersion) -> bool:
    return entry.state is State.FAILED and entry.retryable


@dataclass(slots=True)
class LoadedModels:
    """One replica's view: the newest generation of each deployment, and every version it holds."""

    device: Device = Device.CPU
    """Decides which variant of a version is wanted here."""
    replica: str = "inference-0"
    peers: Peers = field(default_factory=Peers)
    deployments: dict[str, DesiredDeployment] = field(default_factory=dict)
    """By place: tenants may give their deployments the same name."""
    actual: dict[VersionKey, ActualVersion] = field(default_factory=dict)
    in_flight: dict[VersionKey, int] = field(default_factory=dict)
    last_used: dict[VersionKey, float] = field(default_factory=dict)
    """Monotonic seconds of the latest request's end."""

    def apply(self, deployment: DesiredDeployment) -> bool:
        """Takes a deployment's newest desired state; False when a generation at least as new is known already.

        One that was deleted is forgotten.
        """
        known = self.deployments.get(deployment.qualified_name)
        if known is not None and known.changed.generation >= deployment.changed.generation:
            return False
        if deployment.changed.deleted:
            return self.deployments.pop(deployment.qualified_name, None) is not None
        self.deployments[deployment.qualified_name] = deployment
        return True

    def plan(self) -> list[Action]:
        """What this replica has to load, by the placements, and to let go."""
        desired = [item for deployment in self.deployments.values() for item in self._share(deployment)]
        return decide(desired, self.actual.values())

    def _share(self, deployment: DesiredDeployment) -> list[DesiredVersion]:
        """What of a deployment this replica loads.

        Where others are assigned it keeps what it has ready until each of them has it: no version is without a replica
        because it moves.
        """
        items = desired_versions(deployment, self.device)
        assigned = deployment.changed.placement.assigned(
            deployment.qualified_name, {**self.peers.devices, self.replica: self.device}
        )
        if self.replica in assigned:
            return items
        return [item for item in items if self._is_needed_still(item, assigned)]

    def _is_needed_still(self, item: DesiredVersion, assigned: frozenset[str]) -> bool:
        entry = self.actual.get(item.key)
        version = (item.key.qualified_name, item.model, item.key.version)
        return (
            entry is not None
            and entry.state is State.READY
            and bool(assigned)
            and not self.peers.have_ready(assigned, version)
        )

    def begin(self, desired: DesiredVersion) -> None:
        """An entry for a version to bring up; a failed one starts over with its attempts at zero."""
        self.actual[desired.key] = ActualVersion(desired)

    def move(self, key: VersionKey, to: State, *, reason: str | None = None, retryable: bool = False) -> None:
        """Raises IllegalMove. A version that became unloaded is forgotten."""
        moved = move(self.actual[key], to, reason=reason, retryable=retryable)
        if to is State.UNLOADED:
            self.forget(key)
        else:
            self.actual[key] = moved

    def forget(self, key: VersionKey) -> None:
        self.actual.pop(key, None)
        self.last_used.pop(key, None)

    def route(self, deployment: str, version: int, tenant: str = DEFAULT_TENANT, *, model: str = "") -> ActualVersion:
        """The loaded version that answers; version 0 asks for the primary, no model for the deployment's.

        Raises UnknownDeployment, or VersionNotServed when the deployment is known but that version is not
        ready here. A draining version still answers: requests routed to it just before the change are on their way.
        """
        name = qualified_name(tenant, deployment)
        desired = self.deployments.get(name)
        if desired is None:
            raise UnknownDeployment(deployment=deployment)
        named = (name, model or desired.changed.model, version or _primary(desired.changed))
        serving = [
            entry
            for entry in self.actual.values()
            if (entry.key.qualified_name, entry.desired.model, entry.key.version) == named and entry.serves
        ]
        if not serving:
            raise VersionNotServed(version=named[2] or "?", deployment=deployment, retry_after_seconds=1)
        return min(serving, key=lambda entry: entry.state is State.DRAINING)

    def enter(self, key: VersionKey) -> None:
        """A request begins on this version."""
        self.in_flight[key] = self.in_flight.get(key, 0) + 1

    def exit(self, key: VersionKey, now: float) -> None:
        """A request ended on this version."""
        left = self.in_flight[key] - 1
        if left:
            self.in_flight[key] = left
        else:
            del self.in_flight[key]
        self.last_used[key] = now

    def idle_for(self, key: VersionKey, now: float, since: float) -> float:
        """Seconds without a request, counted from `since` at the earliest; 0 while one is running."""
        if key in self.in_flight:
            return 0.0
        return now - max(since, self.last_used.get(key, since))

    @property
    def ready(self) -> bool:
        """Whether everything that ought to take traffic here is loaded, or has been refused for good."""
        return not any(
            entry.state in COMING_UP and entry.desired.role is Role.PRIMARY for entry in self.actual.values()
        )

    def report(self, *, address: str, sequence: int, capacity: int, leaving: bool) -> ReplicaReported:
        """What this replica serves now, in the order place, version."""
        versions = [
            ReplicaVersion(
                deployment=entry.key.deployment,
                model=entry.desired.model,
                version=entry.key.version,
                state=state,
                reason=entry.reason,
                tenant=entry.key.tenant,
                precision=entry.key.precision,
            )
            for entry in sorted(self.actual.values(), key=lambda entry: (entry.key.qualified_name, entry.key.version))
            if (state := entry.reported_state) is not None
        ]
        return ReplicaReported(
            replica=self.replica,
            address=address,
            sequence=sequence,
            generations={
                qualified_name: deployment.changed.generation
                for qualified_name, deployment in sorted(self.deployments.items())
            },
            versions=versions,
            device=self.device,
            capacity=capacity,
            leaving=leaving,
        )

    def refresh_roles(self) -> None:
        """Copies the newest roles onto the entries that are held already."""
        for deployment in self.deployments.values():
            for item in desired_versions(deployment, self.device):
                entry = self.actual.get(item.key)
                if entry is not None:
                    self.actual[item.key] = replace(entry, desired=item)


def _primary(changed: DeploymentChanged) -> int:
    """The primary's number; without one (the first rollout), the only version that takes or will take traffic."""
    for role in (Role.PRIMARY, Role.CANARY):
        for target in changed.targets:
            if target.role is role:
                return target.version
    return 0
