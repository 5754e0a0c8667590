"""The life of one version on one replica: wanted, brought up step by step, served, drained, gone."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from services.contracts.artifact import ArtifactRef, Device, Precision, best_variant
from services.contracts.events import DeploymentChanged, Role, Target
from services.contracts.names import DEFAULT_TENANT, place_of
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
    def place(self) -> str:
        return place_of(self.tenant, self.deployment)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a tenant's deployment wants, as the registry said last."""

    changed: DeploymentChanged
    tenant: str = DEFAULT_TENANT

    @property
    def place(self) -> str:
        return place_of(self.tenant, self.changed.deployment)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version that a deployment wants served by this replica."""

    key: VersionKey
    model: str
    artifact: ArtifactRef
    role: Role


@dataclass(frozen=True, slots=True)
class Held:
    """One version as this replica has it."""

    wanted: Wanted
    state: State = State.DESIRED
    reason: str | None = None
    """Why it failed, or why it is being tried again."""
    attempts: int = 0
    """Bring-ups begun since it was last wanted anew."""
    retryable: bool = False
    """FAILED because a part did not answer, not because of the artifact: a new generation may try again."""

    @property
    def key(self) -> VersionKey:
        return self.wanted.key

    @property
    def serves(self) -> bool:
        return self.state in SERVING

    @property
    def reported_state(self) -> Literal["loading", "ready", "failed"] | None:
        """As others see it; None once nothing should be routed to it, as when other replicas took it over."""
        if self.state in COMING_UP:
            return "loading"
        if self.state is State.DRAINING and self.wanted.role is not Role.DRAINING:
            return None
        if self.state in SERVING:
            return "ready"
        return "failed" if self.state is State.FAILED else None


def move(held: Held, to: State, *, reason: str | None = None, retryable: bool = False) -> Held:
    """`held` in its next state. Raises IllegalMove when the table does not allow it."""
    if to not in NEXT[held.state]:
        raise IllegalMove(state=str(held.state), to=str(to))
    attempts = held.attempts + 1 if to is State.FETCHING else held.attempts
    return replace(held, state=to, reason=reason, retryable=retryable, attempts=attempts)


def wanted_by(wish: Wish, device: Device = Device.CPU) -> list[Wanted]:
    """What a deployment wants of a replica on that device, the primary first."""
    order = {Role.PRIMARY: 0, Role.CANARY: 1, Role.DRAINING: 2}
    return [
        _wanted(wish, target, device) for target in sorted(wish.changed.targets, key=lambda target: order[target.role])
    ]


def _wanted(wish: Wish, target: Target, device: Device) -> Wanted:
    """The best variant for the device; where none is meant for it, the engine refuses what the registry names."""
    changed = wish.changed
    precision = best_variant(target.variants or [target.precision], device) or target.precision
    key = VersionKey(changed.deployment, target.version, target.artifact.digest, precision, wish.tenant)
    return Wanted(key, target.model or changed.model, target.artifact, target.role)
