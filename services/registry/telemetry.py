"""The registry's metrics."""

from typing import Final

from services.kit.core.metrics import Counter

VERSIONS: Final = Counter(
    "millrace.registry.versions",
    "Versions judged, by what the gate said.",
    ["tenant", "model", "verdict"],
    unit="{version}",
)
ROLLOUTS: Final = Counter(
    "millrace.registry.rollouts",
    "Rollouts ended or paused, or all stopped, by how.",
    ["tenant", "deployment", "outcome"],
    unit="{rollout}",
)

_VERDICTS: Final = {"version_passed": "passed", "version_refused": "refused"}
_OUTCOMES: Final = {
    "rollout_promoted": "promoted",
    "rollout_rolled_back": "rolled_back",
    "rollout_paused": "paused",
    "deployment_rolled_back": "rolled_back",
    "deployment_stopped": "stopped",
}


def count_version(tenant: str, kind: str, model: str) -> None:
    """Counts a fact of a version by its kind, if it is one of these."""
    if verdict := _VERDICTS.get(kind):
        VERSIONS.add(1, tenant=tenant, model=model, verdict=verdict)


def count_rollout(tenant: str, kind: str, deployment: str) -> None:
    """Counts a fact of a deployment by its kind, if it is one of these."""
    if kind == "rollout_started":
        for outcome in _OUTCOMES.values():  # from 0 on: a series that begins at 1 shows no increase
            ROLLOUTS.add(0, tenant=tenant, deployment=deployment, outcome=outcome)
    if outcome := _OUTCOMES.get(kind, ""):
        ROLLOUTS.add(1, tenant=tenant, deployment=deployment, outcome=outcome)
