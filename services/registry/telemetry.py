"""The registry's metrics."""

from typing import Final

from prometheus_client import Counter

from services.registry.domain.facts import AnyFact, DeploymentFact

VERSIONS = Counter("millrace_registry_versions", "Versions judged, by what the gate said.", ["model", "verdict"])
ROLLOUTS = Counter(
    "millrace_registry_rollouts", "Rollouts ended or paused, or all stopped, by how.", ["deployment", "outcome"]
)

_VERDICTS: Final = {"version_passed": "passed", "version_refused": "refused"}
_OUTCOMES: Final = {
    "rollout_promoted": "promoted",
    "rollout_rolled_back": "rolled_back",
    "rollout_paused": "paused",
    "deployment_rolled_back": "rolled_back",
    "deployment_stopped": "stopped",
}


def count(fact: AnyFact) -> None:
    """Counts a fact of the history, if it is one of these."""
    if verdict := _VERDICTS.get(fact.kind):
        VERSIONS.labels(fact.model, verdict).inc()
    if not isinstance(fact, DeploymentFact):
        return
    if fact.kind == "rollout_started":
        for outcome in _OUTCOMES.values():  # from 0 on: a series that begins at 1 shows no increase
            ROLLOUTS.labels(fact.deployment, outcome)
    if outcome := _OUTCOMES.get(fact.kind, ""):
        ROLLOUTS.labels(fact.deployment, outcome).inc()
