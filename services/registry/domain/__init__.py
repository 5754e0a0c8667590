"""The registry's pure rules: decide what follows from a command, `evolve` the state by it, say what is `desired`."""

from services.registry.domain.decide_deployment import decide_deployment
from services.registry.domain.decide_model import decide_model
from services.registry.domain.desired import TimerSpec, awaited, desired, elapsed, replicas_missing, timers
from services.registry.domain.evolve import evolve, fold
from services.registry.domain.facts import AnyFact, Decided, parse, payload
from services.registry.domain.policy import GatePolicy, RolloutPolicy, Rules
from services.registry.domain.spec import Approval, DeploymentSpec, SpecChanges, VersionRef
from services.registry.domain.state import Deployment, ModelState, canonical_json, state_hash

__all__ = [
    "AnyFact",
    "Approval",
    "Decided",
    "Deployment",
    "DeploymentSpec",
    "GatePolicy",
    "ModelState",
    "RolloutPolicy",
    "Rules",
    "SpecChanges",
    "TimerSpec",
    "VersionRef",
    "awaited",
    "canonical_json",
    "decide_deployment",
    "decide_model",
    "desired",
    "elapsed",
    "evolve",
    "fold",
    "parse",
    "payload",
    "replicas_missing",
    "state_hash",
    "timers",
]
