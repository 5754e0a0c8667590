"""What can happen to a model or a deployment, as lines of the registry's history. Who, why and when stand beside it.

A fact is never changed or removed once it is written: histories outlive this code. A new field needs a default.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from services.contracts.artifact import Precision
from services.contracts.events import Evidence, ModelTrained, Verdict
from services.contracts.names import (
    DatasetName,
    DeploymentName,
    ModelName,
    Name,
    ReplicaId,
    RolloutId,
    RunId,
    VersionNumber,
)
from services.contracts.training import Fact
from services.registry.domain.policy import RolloutPolicy
from services.registry.domain.spec import DeploymentSpec, VersionRef


class Check(Fact):
    """One question of the gate: what was measured, and the limit it was held against."""

    name: str
    passed: bool
    detail: str
    value: float
    limit: float


class Gate(Fact):
    """What the gate said of a version, check by check."""

    passed: bool
    champion: VersionNumber | None = Field(description="who served when it was judged")
    checks: tuple[Check, ...]


class ModelFact(Fact):
    """A fact about one model, which is one stream of the history."""

    model: ModelName

    @property
    def stream(self) -> str:
        return f"model/{self.model}"


class RunFailed(ModelFact):
    kind: Literal["run_failed"] = "run_failed"
    run: RunId
    dataset: DatasetName
    stage: str
    code: str
    retryable: bool


class VersionRegistered(ModelFact):
    """A run's result got a number. `trained` is its whole lineage."""

    kind: Literal["version_registered"] = "version_registered"
    version: VersionNumber
    precision: Precision = Field(description="the variant that is to be served")
    trained: ModelTrained


class VersionPassed(ModelFact):
    kind: Literal["version_passed"] = "version_passed"
    version: VersionNumber
    gate: Gate


class VersionRefused(ModelFact):
    kind: Literal["version_refused"] = "version_refused"
    version: VersionNumber
    gate: Gate


class VersionDrifted(ModelFact):
    """The traffic of a version left what it had learned from."""

    kind: Literal["version_drifted"] = "version_drifted"
    version: VersionNumber
    test: str
    statistic: float
    p_value: float


class AliasMoved(ModelFact):
    kind: Literal["alias_moved"] = "alias_moved"
    alias: Name
    before: VersionNumber | None
    after: VersionNumber | None = Field(description="none when the alias was taken away")


class DeploymentFact(Fact):
    """A fact about one deployment, which is one stream of the history."""

    deployment: DeploymentName

    @property
    def stream(self) -> str:
        return f"deployment/{self.deployment}"


class DeploymentCreated(DeploymentFact):
    kind: Literal["deployment_created"] = "deployment_created"
    spec: DeploymentSpec


class DeploymentUpdated(DeploymentFact):
    """Its specification is another one from now on; `spec` is the whole of it."""

    kind: Literal["deployment_updated"] = "deployment_updated"
    spec: DeploymentSpec


class DeploymentDeleted(DeploymentFact):
    kind: Literal["deployment_deleted"] = "deployment_deleted"


class RolloutFact(DeploymentFact):
    rollout: RolloutId
    model: ModelName
    version: VersionNumber

    @property
    def ref(self) -> VersionRef:
        return VersionRef(model=self.model, version=self.version)


class RolloutStarted(RolloutFact):
    """Replicas are to load the version, at once or once it is approved; it gets no traffic yet."""

    kind: Literal["rollout_started"] = "rollout_started"
    policy: RolloutPolicy
    gate_skipped: bool = False
    returning: bool = Field(default=False, description="the way back to the version before, which is no longer loaded")
    pending: bool = Field(default=False, description="it waits for a person's approval")


class RolloutApproved(RolloutFact):
    """A person agreed: replicas are to load the version."""

    kind: Literal["rollout_approved"] = "rollout_approved"


class RolloutLoaded(RolloutFact):
    """The version is ready; the first canary step begins."""

    kind: Literal["rollout_loaded"] = "rollout_loaded"
    replica: ReplicaId


class VerdictRecorded(RolloutFact):
    """The latest verdict on this step changed, but does not move the rollout yet."""

    kind: Literal["verdict_recorded"] = "verdict_recorded"
    step: int
    verdict: Verdict
    requests: int
    evidence: tuple[Evidence, ...] = ()


class StepBaked(RolloutFact):
    """The least time of the step is over; a promote verdict moves it on at once from now."""

    kind: Literal["step_baked"] = "step_baked"
    step: int


class RolloutAdvanced(RolloutFact):
    kind: Literal["rollout_advanced"] = "rollout_advanced"
    step: int
    evidence: tuple[Evidence, ...] = ()


class RolloutPaused(RolloutFact):
    kind: Literal["rollout_paused"] = "rollout_paused"


class RolloutResumed(RolloutFact):
    kind: Literal["rollout_resumed"] = "rollout_resumed"


class RolloutPromoted(RolloutFact):
    """The version has all the traffic; the one before drains."""

    kind: Literal["rollout_promoted"] = "rollout_promoted"
    evidence: tuple[Evidence, ...] = ()


class RolloutRolledBack(RolloutFact):
    """The version has no traffic any more; what served before serves on."""

    kind: Literal["rollout_rolled_back"] = "rollout_rolled_back"
    evidence: tuple[Evidence, ...] = ()


class DeploymentRolledBack(DeploymentFact):
    """The version before took all traffic back at once: it was still loaded."""

    kind: Literal["deployment_rolled_back"] = "deployment_rolled_back"
    before: VersionRef
    after: VersionRef


class DeploymentStopped(DeploymentFact):
    """Nothing is to be served under the name: what was loaded drains, and no version comes back by itself."""

    kind: Literal["deployment_stopped"] = "deployment_stopped"
    version: VersionRef | None = Field(description="who served until then; none when nothing did")


class TargetDropped(DeploymentFact):
    """A drained version need not stay loaded any longer."""

    kind: Literal["target_dropped"] = "target_dropped"
    version: VersionRef


AnyFact: TypeAlias = Annotated[
    RunFailed
    | VersionRegistered
    | VersionPassed
    | VersionRefused
    | VersionDrifted
    | AliasMoved
    | DeploymentCreated
    | DeploymentUpdated
    | DeploymentDeleted
    | RolloutStarted
    | RolloutApproved
    | RolloutLoaded
    | VerdictRecorded
    | StepBaked
    | RolloutAdvanced
    | RolloutPaused
    | RolloutResumed
    | RolloutPromoted
    | RolloutRolledBack
    | DeploymentRolledBack
    | DeploymentStopped
    | TargetDropped,
    Field(discriminator="kind"),
]

_ANY: Final[TypeAdapter[AnyFact]] = TypeAdapter(AnyFact)


@dataclass(frozen=True)
class Decided:
    """One line to be written: the fact, who decided it, and why."""

    fact: AnyFact
    actor: str
    reason: str


def payload(fact: AnyFact) -> dict[str, Any]:
    """The fact as plain JSON values, without its kind, which has a column of its own."""
    return fact.model_dump(mode="json", exclude={"kind"})


def parse(kind: str, payload: dict[str, Any]) -> AnyFact:
    """The fact that `payload` was made from. Raises pydantic's ValidationError on a kind or field that is unknown."""
    return _ANY.validate_python({**payload, "kind": kind})
