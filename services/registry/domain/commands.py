"""What can be asked of a model. The first group is asked by people, the second by events, the third by timers."""

from dataclasses import dataclass, field
from typing import TypeAlias

from services.contracts.events import (
    DriftDetected,
    ModelTrained,
    ReplicaReported,
    RolloutJudged,
    SloBreached,
    TrainingFailed,
)
from services.contracts.names import DeploymentName, Name, ReplicaId, RolloutId, VersionNumber
from services.registry.domain.policy import RolloutPolicy


@dataclass(frozen=True)
class SetAlias:
    """Points an alias at a version, or takes it away when the version is none."""

    alias: Name
    version: VersionNumber | None
    actor: str
    reason: str


@dataclass(frozen=True)
class StartRollout:
    """Rolls a version out; creates the deployment when it is named as the model is."""

    deployment: DeploymentName
    version: VersionNumber
    actor: str
    reason: str
    skip_gate: bool = False
    policy: RolloutPolicy | None = None


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
    """Numbers a run's result, judges it, and rolls it out where the run asks for it.

    The artifact was verified before: nothing here can tell.
    """

    trained: ModelTrained


@dataclass(frozen=True)
class RecordTrainingFailed:
    failed: TrainingFailed


@dataclass(frozen=True)
class RecordDrift:
    drift: DriftDetected


@dataclass(frozen=True)
class ApplyReport:
    """`waiting` names the other live replicas of the deployment that do not have the rollout's version ready yet."""

    report: ReplicaReported
    waiting: frozenset[ReplicaId] = field(default_factory=frozenset)


@dataclass(frozen=True)
class ApplyVerdict:
    judged: RolloutJudged


@dataclass(frozen=True)
class ApplyBreach:
    breach: SloBreached


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
class DrainElapsed:
    """`since` is the generation in which the version began to drain."""

    deployment: DeploymentName
    version: VersionNumber
    since: int


Command: TypeAlias = (
    SetAlias
    | StartRollout
    | PauseRollout
    | ResumeRollout
    | PromoteRollout
    | RollBack
    | StopDeployment
    | RegisterVersion
    | RecordTrainingFailed
    | RecordDrift
    | ApplyReport
    | ApplyVerdict
    | ApplyBreach
    | BakeElapsed
    | StepTimedOut
    | DrainElapsed
)
