"""What follows from the state alone: what ought to be served, and which timers ought to be set."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import TypeAdapter

from services.contracts.artifact import Device
from services.contracts.events import DeploymentChanged, ReplicaReported, RolloutStep, Target
from services.contracts.placement import Placement
from services.registry.domain.commands import BakeElapsed, DrainElapsed, LoadTimedOut, StepTimedOut
from services.registry.domain.spec import VersionRef
from services.registry.domain.state import Deployment, ModelState, Rollout, RolloutState, Served

BAKE: Final = "rollout.bake"
STEP_TIMEOUT: Final = "rollout.step_timeout"
LOAD_TIMEOUT: Final = "rollout.load_timeout"
DRAIN: Final = "deployment.drain"

_STEP: Final[TypeAdapter[Literal["loading", "canary", "paused"]]] = TypeAdapter(Literal["loading", "canary", "paused"])
_OF_STEP: Final[dict[str, type[BakeElapsed | StepTimedOut | LoadTimedOut]]] = {
    BAKE: BakeElapsed,
    STEP_TIMEOUT: StepTimedOut,
    LOAD_TIMEOUT: LoadTimedOut,
}


@dataclass(frozen=True)
class TimerSpec:
    """A timer that ought to be set. `key` is unique within a tenant and never used for a second due time."""

    key: str
    kind: str
    due: datetime
    payload: dict[str, str | int]
    """Names the deployment; `elapsed` makes the command of it."""


def desired(deployment: Deployment, models: Mapping[str, ModelState]) -> DeploymentChanged:
    """What the deployment wants served, from its first generation on; `models` holds those of its targets."""
    rollout = deployment.active_rollout
    mirrors = rollout is not None and rollout.state in (RolloutState.CANARY, RolloutState.PAUSED)
    spec = deployment.spec
    return DeploymentChanged(
        deployment=deployment.name,
        model=deployment.model if spec is not None else deployment.models[-1],
        generation=deployment.generation,
        targets=[_target(served, models[served.version.model]) for served in deployment.targets],
        placement=spec.placement if spec is not None else Placement(),
        deleted=spec is None,
        mirror=rollout.policy.mirror if rollout is not None and mirrors else 0.0,
        rollout=_step(deployment),
        reason=deployment.reason,
    )


def _target(served: Served, model: ModelState) -> Target:
    version = model.version(served.version.version)
    return Target(
        model=model.model,
        version=version.number,
        artifact=version.artifact,
        precision=version.precision,
        variants=version.passed_variants,
        role=served.role,
        weight=served.weight,
    )


def replicas_missing(deployment: Deployment, reports: Iterable[ReplicaReported], *, qualified_name: str) -> int:
    """How many more replicas must have the rollout's version ready before it may take traffic; 0 without a rollout.

    `reports` are the latest of the replicas that live, reduced to the deployment's tenant.
    """
    rollout = deployment.active_rollout
    if rollout is None:
        return 0
    placement = deployment.require_spec().placement
    live = {report.replica: report for report in reports}
    devices = {name: report.device or Device.CPU for name, report in live.items()}
    assigned = placement.assigned(qualified_name, devices)
    ready = sum(_has_ready(live[replica], deployment.name, rollout) for replica in assigned)
    return max(0, placement.required_ready(len(assigned)) - ready)


def _has_ready(report: ReplicaReported, name: str, rollout: Rollout) -> bool:
    desired = (name, rollout.version.model, rollout.version.version)
    fresh = report.generations.get(name, 0) >= rollout.generation
    return fresh and any(
        part.state == "ready" and (part.deployment, part.model, part.version) == desired for part in report.versions
    )


def timers(deployment: Deployment) -> dict[str, TimerSpec]:
    """Every timer that ought to be set in this state, by key. Set what is new in it, cancel what left it."""
    return {spec.key: spec for spec in _timers(deployment)}


def elapsed(kind: str, payload: dict[str, str | int]) -> BakeElapsed | StepTimedOut | LoadTimedOut | DrainElapsed:
    """The command of a timer that fell due. Raises KeyError on what is not a timer of the registry."""
    name = str(payload["deployment"])
    if kind == DRAIN:
        version = VersionRef(model=str(payload["model"]), version=int(payload["version"]))
        return DrainElapsed(name, version=version, since=int(payload["since"]))
    return _OF_STEP[kind](name, rollout=str(payload["rollout"]), entered=int(payload["entered"]))


def _step(deployment: Deployment) -> RolloutStep | None:
    rollout = deployment.active_rollout
    if rollout is None or rollout.state is RolloutState.PENDING:
        return None
    return RolloutStep(
        rollout=rollout.id,
        model=rollout.version.model,
        version=rollout.version.version,
        state=_STEP.validate_python(rollout.state.value),
        step=rollout.step,
        steps=max(1, len(rollout.policy.weights)),
    )


def _timers(deployment: Deployment) -> Iterator[TimerSpec]:
    name, rollout = deployment.name, deployment.rollout
    if rollout is not None:
        yield from _of_rollout(deployment, rollout)
    for served in deployment.targets:
        if served.until is not None:
            version: dict[str, str | int] = {"model": served.version.model, "version": served.version.version}
            yield TimerSpec(
                key=f"drain:{name}:{served.version}:{served.since}",
                kind=DRAIN,
                due=served.until,
                payload={"deployment": name, **version, "since": served.since},
            )


def _of_rollout(deployment: Deployment, rollout: Rollout) -> Iterator[TimerSpec]:
    step: dict[str, str | int] = {"deployment": deployment.name, "rollout": rollout.id, "entered": rollout.entered}
    key, policy, entered_at = f"{rollout.id}:{rollout.entered}", rollout.policy, rollout.entered_at
    if rollout.state is RolloutState.LOADING and deployment.version is not None:
        limit = entered_at + timedelta(seconds=policy.load_timeout_seconds)
        yield TimerSpec(f"load:{key}", LOAD_TIMEOUT, limit, step)
    if rollout.state is RolloutState.CANARY:
        if not rollout.baked:
            yield TimerSpec(f"bake:{key}", BAKE, entered_at + timedelta(seconds=policy.bake_seconds), step)
        limit = entered_at + timedelta(seconds=policy.step_timeout_seconds)
        yield TimerSpec(f"timeout:{key}", STEP_TIMEOUT, limit, step)


def awaited(deployment: Deployment, reports: Iterable[ReplicaReported], *, qualified_name: str) -> str:
    """What a rollout that loads waits for, in words; empty for any other, and once enough replicas are ready.

    `reports` are those that `replicas_missing` takes.
    """
    rollout, live = deployment.active_rollout, list(reports)
    if rollout is None or rollout.state is not RolloutState.LOADING:
        return ""
    missing = replicas_missing(deployment, live, qualified_name=qualified_name)
    if not missing:
        return ""
    placement = deployment.require_spec().placement
    devices = {report.replica: report.device or Device.CPU for report in live}
    assigned = placement.assigned(qualified_name, devices)
    if not assigned:
        kind = f" with the device {placement.device}" if placement.device is not None else ""
        return f"no replica{kind} reports"
    states = "; ".join(_load_state(report, deployment.name, rollout) for report in live if report.replica in assigned)
    return f"{missing} more of {placement.required_ready(len(assigned))} replicas must have it ready: {states}"


def _load_state(report: ReplicaReported, name: str, rollout: Rollout) -> str:
    desired = (name, rollout.version.model, rollout.version.version)
    for part in report.versions:
        if (part.deployment, part.model, part.version) == desired:
            return f"{report.replica} {part.state}" + (f" ({part.reason})" if part.reason else "")
    return f"{report.replica} has not begun"
