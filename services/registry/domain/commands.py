"""Commands to models and deployments: first those of people, then of events, then of timers."""

from dataclasses import dataclass
from typing import TypeAlias

from services.contracts.events import (
    DriftDetected,
    ModelTrained,
    ReplicaReported,
    RolloutJudged,
    SloBreached,
    TrainingFailed,
)
from services.contracts.names import DeploymentName, Name, RolloutId, VersionNumber
from services.registry.domain.policy import PolicyChanges
from services.registry.domain.spec import DeploymentSpec, SpecChanges, VersionRef


@dataclass(frozen=True)
class SetAlias:
    """Points an alias at a version, or takes it away when the version is none."""

    alias: Name
    version: VersionNumber | None
    actor: str
    reason: str


@dataclass(frozen=True)
class CreateDeployment:
    """Makes a deployment, which serves nothing until a rollout is started."""

    deployment: DeploymentName
    spec: DeploymentSpec
    actor: str
    reason: str


@dataclass(frozen=True)
class UpdateDeployment:
    """Changes what is given of the specification. A deployment that is moved to another model serves the one that it
    serves until a version of the new model is rolled out."""

    deployment: DeploymentName
    changes: SpecChanges
    actor: str
    reason: str


@dataclass(frozen=True)
class DeleteDeployment:
    """Takes a stopped deployment away; its history stays, and its name may be used again."""

    deployment: DeploymentName
    actor: str
    reason: str


@dataclass(frozen=True)
class StartRollout:
    """Rolls a version of the deployment's model out; creates the deployment when it is named as the model is."""

    deployment: DeploymentName
    version: VersionNumber
    actor: str
    reason: str
    skip_gate: bool = False
    policy: PolicyChanges = PolicyChanges()


@dataclass(frozen=True)
class OfferVersion:
    """A version has passed its gate: the registry rolls it out where the deployment serves its model by itself.

    The first version of a model creates the deployment of the model's name, unless somebody deleted it."""

    deployment: DeploymentName
    version: VersionRef
    reason: str


@dataclass(frozen=True)
class ApproveRollout:
    """Lets a rollout that waits for a person begin."""

    deployment: DeploymentName
    actor: str
    reason: str


@dataclass(frozen=True)
class PauseRollout:
    """Freezes the weights where they are."""

    deployment: DeploymentName
    actor: str
    reason: str


@dataclass(frozen=True)
class ResumeRollout:
    """Goes on with the step where it stopped; what was baked stays baked, the timeout starts afresh."""

    deployment: DeploymentName
    actor: str
    reason: str


@dataclass(frozen=True)
class PromoteRollout:
    """Gives the canary all traffic now, whatever the evidence."""

    deployment: DeploymentName
    actor: str
    reason: str


@dataclass(frozen=True)
class RollBack:
    """Ends the rollout under way; without one, returns to the version before the present one."""

    deployment: DeploymentName
    actor: str
    reason: str


@dataclass(frozen=True)
class StopDeployment:
    """Serves nothing any more: a rollout under way ends, what is loaded drains. Asked twice it changes nothing."""

    deployment: DeploymentName
    actor: str
    reason: str


@dataclass(frozen=True)
class RegisterVersion:
    """Numbers a run's result and judges it. The artifact was verified before: nothing here can tell.

    `champion` is the version that serves now, with which the run has to have compared it.
    """

    trained: ModelTrained
    champion: VersionNumber | None = None


@dataclass(frozen=True)
class RecordTrainingFailed:
    failed: TrainingFailed


@dataclass(frozen=True)
class RecordDrift:
    drift: DriftDetected


@dataclass(frozen=True)
class ApplyReport:
    """`missing` is how many more replicas must have the rollout's version ready before it may take traffic."""

    deployment: DeploymentName
    report: ReplicaReported
    missing: int = 0


@dataclass(frozen=True)
class ApplyVerdict:
    judged: RolloutJudged

    @property
    def deployment(self) -> DeploymentName:
        return self.judged.deployment


@dataclass(frozen=True)
class ApplyBreach:
    breach: SloBreached

    @property
    def deployment(self) -> DeploymentName:
        return self.breach.deployment


@dataclass(frozen=True)
class BakeElapsed:
    """`entered` is the generation in which the step began: a timer set before a pause does not count after it."""

    deployment: DeploymentName
    rollout: RolloutId
    entered: int


@dataclass(frozen=True)
class StepTimedOut:
    deployment: DeploymentName
    rollout: RolloutId
    entered: int


@dataclass(frozen=True)
class LoadTimedOut:
    """`entered` is the generation in which the replicas were to begin loading."""

    deployment: DeploymentName
    rollout: RolloutId
    entered: int


@dataclass(frozen=True)
class DrainElapsed:
    """`since` is the generation in which the version began to drain."""

    deployment: DeploymentName
    version: VersionRef
    since: int


ModelCommand: TypeAlias = SetAlias | RegisterVersion | RecordTrainingFailed | RecordDrift
DeploymentCommand: TypeAlias = (
    CreateDeployment
    | UpdateDeployment
    | DeleteDeployment
    | StartRollout
    | OfferVersion
    | ApproveRollout
    | PauseRollout
    | ResumeRollout
    | PromoteRollout
    | RollBack
    | StopDeployment
    | ApplyReport
    | ApplyVerdict
    | ApplyBreach
    | BakeElapsed
    | StepTimedOut
    | LoadTimedOut
    | DrainElapsed
)
