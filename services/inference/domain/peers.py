"""The other replicas, as they last reported: with whom the deployments are shared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from services.contracts.artifact import Device
from services.contracts.events import ReplicaReported
from services.contracts.names import qualified_name

Ready: TypeAlias = frozenset[tuple[str, str, int]]
"""What a replica has ready: qualified deployment, model, version."""


@dataclass(frozen=True, slots=True)
class _Peer:
    sequence: int
    device: Device
    ready: Ready
    reported_at: float


@dataclass(slots=True)
class Peers:
    """A replica that has not reported for `timeout_seconds` is taken for gone; times are monotonic seconds."""

    timeout_seconds: float = 15.0
    _known: dict[str, _Peer] = field(default_factory=dict)

    def reported(self, report: ReplicaReported, at: float) -> bool:
        """Takes a report, made at that time; False where it says nothing new of device and ready versions."""
        before = self._known.get(report.replica)
        if before is not None and before.sequence >= report.sequence:
            return False
        if report.leaving:
            return self._known.pop(report.replica, None) is not None
        ready = frozenset(
            (qualified_name(part.tenant, part.deployment), part.model, part.version)
            for part in report.versions
            if part.state == "ready"
        )
        peer = _Peer(report.sequence, report.device or Device.CPU, ready, at)
        self._known[report.replica] = peer
        return before is None or (before.device, before.ready) != (peer.device, peer.ready)

    def forget_silent(self, now: float) -> None:
        silent = [name for name, peer in self._known.items() if now - peer.reported_at > self.timeout_seconds]
        for name in silent:
            del self._known[name]

    @property
    def devices(self) -> Mapping[str, Device]:
        return {name: peer.device for name, peer in self._known.items()}

    def have_ready(self, replicas: frozenset[str], version: tuple[str, str, int]) -> bool:
        """Whether each of these replicas has the version ready."""
        return all(name in self._known and version in self._known[name].ready for name in replicas)
