"""The registry's metrics."""

from typing import Final

from prometheus_client import Counter

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


def count_version(kind: str, model: str) -> None:
    """Counts a fact of a version by its kind, if it is one of these."""
    if verdict := _VERDICTS.get(kind):
        VERSIONS.labels(model, verdict).inc()


def count_rollout(kind: str, deployment: str) -> None:
    """Counts a fact of a deployment by its kind, if it is one of these."""
    if kind == "rollout_started":
        for outcome in _OUTCOMES.values():  # from 0 on: a series that begins at 1 shows no increase
            ROLLOUTS.labels(deployment, outcome)
    if outcome := _OUTCOMES.get(kind, ""):
        ROLLOUTS.labels(deployment, outcome).inc()
