"""The registry's pure rules: `decide` what follows from a command, `evolve` the state by it, tell what is `desired`."""

from services.registry.domain.decide import decide
from services.registry.domain.desired import TimerSpec, changes, desired, elapsed, timers
from services.registry.domain.evolve import evolve, fold
from services.registry.domain.facts import AnyFact, Decided, parse, payload
from services.registry.domain.policy import GatePolicy, RolloutPolicy, Rules
from services.registry.domain.state import ModelState, canonical_json, state_hash

__all__ = [
    "AnyFact",
    "Decided",
    "GatePolicy",
    "ModelState",
    "RolloutPolicy",
    "Rules",
    "TimerSpec",
    "canonical_json",
    "changes",
    "decide",
    "desired",
    "elapsed",
    "evolve",
    "fold",
    "parse",
    "payload",
    "state_hash",
    "timers",
]
