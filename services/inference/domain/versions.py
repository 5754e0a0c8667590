"""The life of one version on one replica: wanted, brought up step by step, served, drained, gone."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from services.contracts.artifact import ArtifactRef, Device, Precision, best_variant
from services.contracts.events import DeploymentChanged, Role, Target
from services.contracts.names import DEFAULT_TENANT, qualified_name
from services.inference.errors import IllegalMove


class State(StrEnum):
    DESIRED = "desired"
    FETCHING = "fetching"
    CHECKING = "checking"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    """Not wanted any more; still answers until its last request has ended."""
    FAILED = "failed"
    UNLOADED = "unloaded"


NEXT: Final[dict[State, frozenset[State]]] = {
    # DESIRED again after a step: a part did not answer, and the bring-up starts over after a pause.
    State.DESIRED: frozenset({State.FETCHING, State.FAILED, State.UNLOADED}),
    State.FETCHING: frozenset({State.CHECKING, State.DESIRED, State.FAILED, State.UNLOADED}),
    State.CHECKING: frozenset({State.LOADING, State.DESIRED, State.FAILED, State.UNLOADED}),
    State.LOADING: frozenset({State.WARMING, State.DESIRED, State.FAILED, State.UNLOADED}),
    State.WARMING: frozenset({State.READY, State.DESIRED, State.FAILED, State.UNLOADED}),
    State.READY: frozenset({State.DRAINING}),
    # Back to READY: a rollback wants the version again before it was unloaded.
    State.DRAINING: frozenset({State.READY, State.UNLOADED}),
    State.FAILED: frozenset({State.DESIRED, State.UNLOADED}),
    State.UNLOADED: frozenset(),
}

COMING_UP: Final = frozenset({State.DESIRED, State.FETCHING, State.CHECKING, State.LOADING, State.WARMING})
SERVING: Final = frozenset({State.READY, State.DRAINING})


@dataclass(frozen=True, slots=True)
class VersionKey:
    """What makes a loaded version that very one: a version served from other bytes is another thing to load."""

    deployment: str
    version: int
    digest: str
    precision: Precision
    tenant: str = DEFAULT_TENANT

    @property
    def qualified_name(self) -> str:
        return qualified_name(self.tenant, self.deployment)


@dataclass(frozen=True, slots=True)
class DesiredDeployment:
    """What a tenant's deployment wants, as the registry said last."""

    changed: DeploymentChanged
    tenant: str = DEFAULT_TENANT

    @property
    def qualified_name(self) -> str:
        return qualified_name(self.tenant, self.changed.deployment)


@dataclass(frozen=True, slots=True)
class DesiredVersion:
    """One version that a deployment wants served by this replica."""

    key: VersionKey
    model: str
    artifact: ArtifactRef
    role: Role


@dataclass(frozen=True, slots=True)
class ActualVersion:
    """One version as this replica has it."""

    desired: DesiredVersion
    state: State = State.DESIRED
    reason: str | None = None
    """Why it failed, or why it is being tried again."""
    attempts: int = 0
    """Bring-ups begun since it was last wanted anew."""
    retryable: bool = False
    """FAILED because a part did not answer, not because of the artifact: a new generation may try again."""

    @property
    def key(self) -> VersionKey:
        return self.desired.key

    @property
    def serves(self) -> bool:
        return self.state in SERVING

    @property
    def reported_state(self) -> Literal["loading", "ready", "failed"] | None:
        """As others see it; None once nothing should be routed to it, as when other replicas took it over."""
        if self.state in COMING_UP:
            return "loading"
        if self.state is State.DRAINING and self.desired.role is not Role.DRAINING:
            return None
        if self.state in SERVING:
            return "ready"
        return "failed" if self.state is State.FAILED else None


def move(actual: ActualVersion, to: State, *, reason: str | None = None, retryable: bool = False) -> ActualVersion:
    """`held` in its next state. Raises IllegalMove when the table does not allow it."""
    if to not in NEXT[actual.state]:
        raise IllegalMove(state=str(actual.state), to=str(to))
    attempts = actual.attempts + 1 if to is State.FETCHING else actual.attempts
    return replace(actual, state=to, reason=reason, retryable=retryable, attempts=attempts)


def desired_versions(deployment: DesiredDeployment, device: Device = Device.CPU) -> list[DesiredVersion]:
    """What a deployment wants of a replica on that device, the primary first."""
    order = {Role.PRIMARY: 0, Role.CANARY: 1, Role.DRAINING: 2}
    return [
        _desired_version(deployment, target, device)
        for target in sorted(deployment.changed.targets, key=lambda target: order[target.role])
    ]


def _desired_version(deployment: DesiredDeployment, target: Target, device: Device) -> DesiredVersion:
    """The best variant for the device; where none is meant for it, the engine refuses what the registry names."""
    changed = deployment.changed
    precision = best_variant(target.variants or [target.precision], device) or target.precision
    key = VersionKey(changed.deployment, target.version, target.artifact.digest, precision, deployment.tenant)
    return DesiredVersion(key, target.model or changed.model, target.artifact, target.role)
