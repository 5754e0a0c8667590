"""What the registry knows of a model and of a deployment: the folds of their histories, and their canonical form."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from pydantic import Field

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import Evidence, ModelTrained, Role, Verdict
from services.contracts.names import DeploymentName, ModelName, RolloutId, RunId, VersionNumber
from services.contracts.training import Fact
from services.registry.domain.facts import Gate
from services.registry.domain.policy import RolloutPolicy
from services.registry.domain.spec import DeploymentSpec, VersionRef
from services.registry.errors import NoRollout, UnknownAlias, UnknownDeployment, UnknownModel, UnknownVersion

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
PREVIOUS: Final = "previous"
RESERVED_ALIASES: Final = frozenset({CHAMPION, CHALLENGER, PREVIOUS})


class VersionStatus(StrEnum):
    REGISTERED = "registered"
    PASSED = "passed"
    REFUSED = "refused"


class RolloutState(StrEnum):
    PENDING = "pending"
    """It waits for a person's approval; nothing is loaded for it."""
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
    RolloutState.PENDING: frozenset({RolloutState.LOADING, RolloutState.ROLLED_BACK}),
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

    @property
    def artifact(self) -> ArtifactRef:
        return self.trained.artifact

    @property
    def passed_variants(self) -> list[Precision]:
        return [variant.precision for variant in self.trained.variants if variant.passed]


class Served(Fact):
    """One version that is to be loaded, and its share of the traffic."""

    version: VersionRef
    role: Role
    weight: int = Field(ge=0, le=100)
    since: int = Field(description="the generation in which it took this role")
    until: datetime | None = Field(default=None, description="when it has drained and is dropped")


class Rollout(Fact):
    """The latest rollout of a deployment; its `actor` and `reason` are those of its latest move."""

    id: RolloutId
    version: VersionRef
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
    """What is served under one name. `Deployment(name=...)` is the state before its first fact."""

    name: DeploymentName
    spec: DeploymentSpec | None = Field(default=None, description="none before it is created and once it is deleted")
    generation: int = 0
    targets: tuple[Served, ...] = ()
    before: tuple[VersionRef, ...] = Field(
        default=(), description="who served earlier, the last one last; who served when it was stopped is one of them"
    )
    rollout: Rollout | None = None
    rollouts: int = Field(default=0, description="how many were ever started")
    rolled_out: tuple[VersionRef, ...] = Field(default=(), description="the versions of these rollouts")
    models: tuple[ModelName, ...] = Field(default=(), description="all that it was ever specified to serve")
    stopped: bool = Field(default=False, description="a person wants nothing served")
    reason: str = ""
    changed_at: datetime | None = None

    @property
    def primary(self) -> Served | None:
        return next((target for target in self.targets if target.role is Role.PRIMARY), None)

    @property
    def version(self) -> VersionRef | None:
        """Who serves now."""
        return self.primary.version if self.primary else None

    @property
    def model(self) -> ModelName:
        """The model that serves; while nothing does, the one that is to. Raises UnknownDeployment."""
        return self.version.model if self.version else self.require_spec().model

    @property
    def active_rollout(self) -> Rollout | None:
        return self.rollout if self.rollout and self.rollout.active else None

    @property
    def aliases(self) -> dict[str, VersionRef]:
        """The aliases that move with rollouts: who serves, who served before, who is on trial."""
        named = {
            CHAMPION: self.version,
            PREVIOUS: self.before[-1] if self.before else None,
            CHALLENGER: self.active_rollout.version if self.active_rollout else None,
        }
        return {alias: version for alias, version in named.items() if version is not None}

    def target(self, version: VersionRef) -> Served | None:
        return next((target for target in self.targets if target.version == version), None)

    def require_spec(self) -> DeploymentSpec:
        """Raises UnknownDeployment."""
        if self.spec is None:
            raise UnknownDeployment(deployment=self.name)
        return self.spec

    def require_rollout(self) -> Rollout:
        """The rollout under way. Raises UnknownDeployment, NoRollout."""
        self.require_spec()
        if (rollout := self.active_rollout) is None:
            raise NoRollout(deployment=self.name)
        return rollout


class ModelState(Fact):
    """One model. `ModelState(model=name)` is the state before its first fact."""

    model: ModelName
    versions: tuple[Version, ...] = ()
    failed_runs: tuple[RunId, ...] = ()
    aliases: dict[str, VersionNumber] = Field(default_factory=dict, description="those that people moved")

    def version(self, number: int) -> Version:
        """Raises UnknownVersion."""
        if not 1 <= number <= len(self.versions):
            raise UnknownVersion(model=self.model, version=number)
        return self.versions[number - 1]


@dataclass(frozen=True)
class ModelView:
    """A model as people see it: its versions, and the aliases of people and of its deployment."""

    state: ModelState
    aliases: Mapping[str, int]

    def resolve(self, text: str) -> Version:
        """The version that `2` or `@champion` names. Raises UnknownAlias or UnknownVersion."""
        if text.startswith("@"):
            if (number := self.aliases.get(text[1:])) is None:
                raise UnknownAlias(model=self.state.model, alias=text[1:])
            return self.state.version(number)
        if not (text.isascii() and text.isdecimal() and len(text) <= 9):
            raise UnknownVersion(model=self.state.model, version=text)
        return self.state.version(int(text))

    def aliases_of(self, number: int) -> list[str]:
        return sorted(alias for alias, version in self.aliases.items() if version == number)


def view(state: ModelState, deployment: Deployment | None) -> ModelView:
    """The model beside the deployment whose aliases count: the rollouts' own come before those of people."""
    moving = deployment.aliases if deployment is not None else {}
    own = {alias: ref.version for alias, ref in moving.items() if ref.model == state.model}
    return ModelView(state, {**state.aliases, **own})


@dataclass(frozen=True)
class DeploymentView:
    """A deployment as people see it: its state, and the models whose versions it names."""

    state: Deployment
    models: Mapping[str, ModelState]
    awaited: str = ""
    """What its rollout waits for while replicas load the version."""

    def resolve(self, text: str) -> VersionNumber:
        """The version of its model that `2`, `@previous` or an alias of the model names.

        Raises UnknownModel, UnknownAlias or UnknownVersion.
        """
        name = self.state.spec.model if self.state.spec is not None else self.state.name
        model = self.models.get(name)
        if model is None or not model.versions:
            raise UnknownModel(model=name)
        return view(model, self.state).resolve(text).number


def main_deployment(model: ModelName, deployments: Iterable[Deployment]) -> Deployment | None:
    """The deployment whose aliases are the model's: one that serves it, and of these the one of the model's name."""
    of_model = [one for one in deployments if one.spec is not None and one.model == model]
    return min(of_model, key=lambda one: (one.version is None, one.name != model, one.name), default=None)


def champion(model: ModelName, deployments: Iterable[Deployment]) -> VersionNumber | None:
    """The version of the model that serves now, with which a new one has to be compared."""
    main = main_deployment(model, deployments)
    return main.version.version if main is not None and main.version is not None else None


Aggregate: TypeAlias = ModelState | Deployment


def canonical_json(state: Aggregate) -> str:
    """One text for one state: keys sorted, no white space. `model_validate_json` of its class reads it back."""
    return json.dumps(state.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def state_hash(state: Aggregate) -> str:
    """SHA-256, in hex, of the canonical JSON in UTF-8."""
    return hashlib.sha256(canonical_json(state).encode()).hexdigest()
