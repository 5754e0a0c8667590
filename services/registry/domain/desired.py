"""What follows from the state alone: what ought to be served, and which timers ought to be set."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import TypeAdapter

from services.contracts.events import DeploymentChanged, RolloutStep, Target
from services.registry.domain.commands import BakeElapsed, DrainElapsed, StepTimedOut
from services.registry.domain.state import Deployment, ModelState, RolloutState

BAKE: Final = "rollout.bake"
STEP_TIMEOUT: Final = "rollout.step_timeout"
DRAIN: Final = "deployment.drain"

_STEP: Final[TypeAdapter[Literal["loading", "canary", "paused"]]] = TypeAdapter(Literal["loading", "canary", "paused"])
_OF_STEP: Final[dict[str, type[BakeElapsed | StepTimedOut]]] = {BAKE: BakeElapsed, STEP_TIMEOUT: StepTimedOut}


@dataclass(frozen=True)
class TimerSpec:
    """A timer that ought to be set. `key` is unique within a tenant and never used for a second due time."""

    key: str
    kind: str
    due: datetime
    payload: dict[str, str | int]
    """Names the model; `elapsed` makes the command of it."""


def desired(state: ModelState, name: str) -> DeploymentChanged:
    """What the deployment wants served, from its first generation on. Raises UnknownDeployment."""
    deployment = state.deployment(name)
    rollout = deployment.active_rollout
    mirrors = rollout is not None and rollout.state is not RolloutState.LOADING
    return DeploymentChanged(
        deployment=name,
        model=state.model,
        generation=deployment.generation,
        targets=[
            Target(
                version=served.version,
                artifact=state.version(served.version).artifact,
                precision=state.version(served.version).precision,
                variants=state.version(served.version).passed_variants,
                role=served.role,
                weight=served.weight,
            )
            for served in deployment.targets
        ],
        mirror=rollout.policy.mirror if rollout is not None and mirrors else 0.0,
        rollout=_step(deployment),
        reason=deployment.reason,
    )


def changes(before: ModelState, after: ModelState) -> list[DeploymentChanged]:
    """What to tell when one state follows another: every deployment whose generation grew, once."""
    old = {name: deployment.generation for name, deployment in before.deployments.items()}
    grown = [name for name, deployment in after.deployments.items() if deployment.generation > old.get(name, 0)]
    return [desired(after, name) for name in sorted(grown)]


def timers(state: ModelState) -> dict[str, TimerSpec]:
    """Every timer that ought to be set in this state, by key. Set what is new in it, cancel what left it."""
    wanted = (spec for deployment in state.deployments.values() for spec in _timers(state, deployment))
    return {spec.key: spec for spec in wanted}


def elapsed(kind: str, payload: dict[str, str | int]) -> BakeElapsed | StepTimedOut | DrainElapsed:
    """The command of a timer that fell due. Raises KeyError on what is not a timer of the registry."""
    name = str(payload["deployment"])
    if kind == DRAIN:
        return DrainElapsed(name, version=int(payload["version"]), since=int(payload["since"]))
    return _OF_STEP[kind](name, rollout=str(payload["rollout"]), entered=int(payload["entered"]))


def _step(deployment: Deployment) -> RolloutStep | None:
    if (rollout := deployment.active_rollout) is None:
        return None
    return RolloutStep(
        rollout=rollout.id,
        version=rollout.version,
        state=_STEP.validate_python(rollout.state.value),
        step=rollout.step,
        steps=max(1, len(rollout.policy.weights)),
    )


def _timers(state: ModelState, deployment: Deployment) -> Iterator[TimerSpec]:
    name, rollout = deployment.name, deployment.rollout
    if rollout is not None and rollout.state is RolloutState.CANARY:
        step: dict[str, str | int] = {
            "model": state.model,
            "deployment": name,
            "rollout": rollout.id,
            "entered": rollout.entered,
        }
        key, policy = f"{rollout.id}:{rollout.entered}", rollout.policy
        if not rollout.baked:
            yield TimerSpec(f"bake:{key}", BAKE, rollout.entered_at + timedelta(seconds=policy.bake_seconds), step)
        limit = rollout.entered_at + timedelta(seconds=policy.step_timeout_seconds)
        yield TimerSpec(f"timeout:{key}", STEP_TIMEOUT, limit, step)
    for served in deployment.targets:
        if served.until is not None:
            yield TimerSpec(
                key=f"drain:{name}:{served.version}:{served.since}",
                kind=DRAIN,
                due=served.until,
                payload={"model": state.model, "deployment": name, "version": served.version, "since": served.since},
            )
