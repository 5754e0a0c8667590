"""The registry's metrics."""

from typing import Final

from prometheus_client import Counter

VERSIONS = Counter("millrace_registry_versions", "Versions judged, by what the gate said.", ["verdict"])
ROLLOUTS = Counter("millrace_registry_rollouts", "Rollouts ended or paused, by how.", ["outcome"])

_VERDICTS: Final = {"version_passed": "passed", "version_refused": "refused"}
_OUTCOMES: Final = {
    "rollout_promoted": "promoted",
    "rollout_rolled_back": "rolled_back",
    "rollout_paused": "paused",
    "deployment_rolled_back": "rolled_back",
}


def count(kind: str) -> None:
    """Counts a fact of the history, if it is one of these."""
    if kind in _VERDICTS:
        VERSIONS.labels(_VERDICTS[kind]).inc()
    elif kind in _OUTCOMES:
        ROLLOUTS.labels(_OUTCOMES[kind]).inc()
