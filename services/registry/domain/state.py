"""What the registry knows of one model: the fold of its history, and how it is told and hashed."""

import hashlib
import json
import operator
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import Evidence, ModelTrained, Role, Verdict
from services.contracts.names import DeploymentName, ModelName, RolloutId, RunId, VersionNumber
from services.contracts.training import Fact
from services.registry.domain.facts import Gate
from services.registry.domain.policy import RolloutPolicy
from services.registry.errors import NoRollout, UnknownAlias, UnknownDeployment, UnknownVersion

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
PREVIOUS: Final = "previous"
RESERVED_ALIASES: Final = frozenset({CHAMPION, CHALLENGER, PREVIOUS})


class VersionStatus(StrEnum):
    REGISTERED = "registered"
    PASSED = "passed"
    REFUSED = "refused"


class RolloutState(StrEnum):
    LOADING = "loading"
    CANARY = "canary"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


VERSION_NEXT: Final[dict[VersionStatus, frozenset[VersionStatus]]] = {
    VersionStatus.REGISTERED: frozenset({VersionStatus.PASSED, VersionStatus.REFUSED}),
    VersionStatus.PASSED: frozenset(),
    VersionStatus.REFUSED: frozenset(),
}

ROLLOUT_NEXT: Final[dict[RolloutState, frozenset[RolloutState]]] = {
    RolloutState.LOADING: frozenset({RolloutState.CANARY, RolloutState.PROMOTED, RolloutState.ROLLED_BACK}),
    RolloutState.CANARY: frozenset(
        {RolloutState.CANARY, RolloutState.PAUSED, RolloutState.PROMOTED, RolloutState.ROLLED_BACK}
    ),
    RolloutState.PAUSED: frozenset({RolloutState.CANARY, RolloutState.PROMOTED, RolloutState.ROLLED_BACK}),
    RolloutState.PROMOTED: frozenset(),
    RolloutState.ROLLED_BACK: frozenset(),
}


class Version(Fact):
    """A registered run. It never changes but for what was said of it."""

    number: VersionNumber
    status: VersionStatus = VersionStatus.REGISTERED
    precision: Precision
    trained: ModelTrained
    gate: Gate | None = None
    registered_at: datetime
    drifted_at: datetime | None = None
    rolled_out: bool = Field(default=False, description="a rollout of it was started at least once")

    @property
    def artifact(self) -> ArtifactRef:
        return self.trained.artifact

    @property
    def passed_variants(self) -> list[Precision]:
        return [variant.precision for variant in self.trained.variants if variant.passed]


class Served(Fact):
    """One version that is to be loaded, and its share of the traffic."""

    version: VersionNumber
    role: Role
    weight: int = Field(ge=0, le=100)
    since: int = Field(description="the generation in which it took this role")
    until: datetime | None = Field(default=None, description="when it has drained and is dropped")


class Rollout(Fact):
    """The latest rollout of a deployment; its `actor` and `reason` are those of its latest move."""

    id: RolloutId
    version: VersionNumber
    state: RolloutState = RolloutState.LOADING
    policy: RolloutPolicy
    step: int = 0
    entered: int = Field(description="the generation in which this step began, or was resumed")
    entered_at: datetime
    baked: bool = Field(default=False, description="this step's bake time is over")
    verdict: Verdict | None = Field(default=None, description="the latest verdict on this step")
    evidence: tuple[Evidence, ...] = ()
    gate_skipped: bool = False
    returning: bool = False
    generation: int = Field(description="in which it was started; reports of replicas that saw less are stale")
    actor: str
    reason: str
    started_at: datetime
    changed_at: datetime

    @property
    def active(self) -> bool:
        return bool(ROLLOUT_NEXT[self.state])


class Deployment(Fact):
    """What ought to be served under one name."""

    name: DeploymentName
    generation: int = 0
    targets: tuple[Served, ...] = ()
    before: tuple[VersionNumber, ...] = Field(
        default=(), description="who served earlier, the last one last; who served when it was stopped is one of them"
    )
    rollout: Rollout | None = None
    rollouts: int = Field(default=0, description="how many were ever started")
    stopped: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="a person wants nothing served; left out where it is false, so that older states keep their hashes",
    )
    reason: str = ""
    changed_at: datetime

    @property
    def primary(self) -> Served | None:
        return next((target for target in self.targets if target.role is Role.PRIMARY), None)

    @property
    def version(self) -> VersionNumber | None:
        """Who serves now."""
        return self.primary.version if self.primary else None

    @property
    def active_rollout(self) -> Rollout | None:
        return self.rollout if self.rollout and self.rollout.active else None

    def target(self, version: int) -> Served | None:
        return next((target for target in self.targets if target.version == version), None)

    def require_rollout(self) -> Rollout:
        """The rollout under way. Raises NoRollout."""
        if (rollout := self.active_rollout) is None:
            raise NoRollout(deployment=self.name)
        return rollout


class ModelState(Fact):
    """One model. `ModelState(model=name)` is the state before its first fact."""

    model: ModelName
    versions: tuple[Version, ...] = ()
    failed_runs: tuple[RunId, ...] = ()
    aliases: dict[str, VersionNumber] = Field(default_factory=dict)
    deployments: dict[str, Deployment] = Field(default_factory=dict)

    @property
    def champion(self) -> VersionNumber | None:
        return self.aliases.get(CHAMPION)

    def version(self, number: int) -> Version:
        """Raises UnknownVersion."""
        if not 1 <= number <= len(self.versions):
            raise UnknownVersion(model=self.model, version=number)
        return self.versions[number - 1]

    def deployment(self, name: str) -> Deployment:
        """Raises UnknownDeployment."""
        if name not in self.deployments:
            raise UnknownDeployment(deployment=name)
        return self.deployments[name]

    def resolve(self, text: str) -> Version:
        """The version that `2` or `@champion` names. Raises UnknownAlias or UnknownVersion."""
        if text.startswith("@"):
            if (number := self.aliases.get(text[1:])) is None:
                raise UnknownAlias(model=self.model, alias=text[1:])
            return self.version(number)
        if not (text.isascii() and text.isdecimal() and len(text) <= 9):
            raise UnknownVersion(model=self.model, version=text)
        return self.version(int(text))

    def aliases_of(self, number: int) -> list[str]:
        return sorted(alias for alias, version in self.aliases.items() if version == number)


def canonical_json(state: ModelState) -> str:
    """One text for one state: keys sorted, no white space. `ModelState.model_validate_json` reads it back."""
    return json.dumps(state.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def state_hash(state: ModelState) -> str:
    """SHA-256, in hex, of the canonical JSON in UTF-8."""
    return hashlib.sha256(canonical_json(state).encode()).hexdigest()
