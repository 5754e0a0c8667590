"""The whole loop on a virtual clock: the handlers of all five rooms in one process, the story of the demo, in seconds.

A seed fixes everything: the same one gives the same history to the byte, duplicates and kills change nothing of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from services.contracts.events import (
    DeploymentChanged,
    DriftDetected,
    FeedbackReceived,
    ModelTrained,
    RegistryFact,
    Role,
    RolloutJudged,
    Verdict,
)
from services.kit.messaging.envelope import Envelope
from services.monitor.domain.drift import WindowVerdict
from services.registry.domain.state import CHAMPION, RolloutState, VersionStatus
from tests.e2e.virtual.outcome import Chain, Outcome, run_scenario

SEED = 1
OTHER_SEED = 2

EXPECTED_FACTS = [
    ("version_registered", 1), ("version_passed", 1), ("rollout_started", 1), ("rollout_promoted", 1),
    ("version_drifted", 1),
    ("version_registered", 2), ("version_passed", 2), ("rollout_started", 2), ("rollout_loaded", 2),
    ("rollout_advanced", 2), ("rollout_promoted", 2), ("target_dropped", 1),
    ("version_registered", 3), ("version_refused", 3),
    ("rollout_started", 3), ("rollout_loaded", 3), ("rollout_rolled_back", 3), ("target_dropped", 3),
    ("version_registered", 4), ("version_passed", 4), ("rollout_started", 4), ("rollout_loaded", 4),
    ("rollout_paused", 4), ("rollout_rolled_back", 4), ("target_dropped", 4),
]  # fmt: skip
"""What happens, version by version. Beside it steps are baked and verdicts are recorded as they come."""

BESIDE = {"deployment_created", "step_baked", "verdict_recorded"}


def facts(outcome: Outcome) -> list[tuple[str, Any]]:
    return [(entry.kind, _version(entry.payload)) for entry in outcome.history if entry.kind not in BESIDE]


def _version(payload: Mapping[str, Any]) -> int | None:
    """A dropped target is named with its model."""
    version = payload.get("version")
    return version["version"] if isinstance(version, dict) else version


RunScenario = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> RunScenario:
    """Tells a story, each kind of it once."""
    folder, known = tmp_path_factory.mktemp("houses"), dict[str, Outcome]()

    def outcome(name: str, **how: Any) -> Outcome:
        if name not in known:
            known[name] = run_scenario(folder / name, folder / "common", **how)
        return known[name]

    return outcome


@pytest.fixture
def outcome(run_once: RunScenario) -> Outcome:
    return run_once("first", seed=SEED)


# --- the story ---------------------------------------------------------------------------------


def test_every_step_happens_in_its_order(outcome: Outcome) -> None:
    assert facts(outcome) == EXPECTED_FACTS
    assert [version.status for version in outcome.state.versions] == [
        VersionStatus.PASSED,
        VersionStatus.PASSED,
        VersionStatus.REFUSED,
        VersionStatus.PASSED,
    ]
    deployment = outcome.deployment
    assert {alias: ref.version for alias, ref in deployment.aliases.items()} == {CHAMPION: 2, "previous": 1}
    assert [(served.version.version, served.weight) for served in deployment.targets] == [(2, 100)]
    assert deployment.rollout is not None
    assert (deployment.rollout.version.version, deployment.rollout.state) == (4, RolloutState.ROLLED_BACK)


def test_the_champion_moves_once_and_only_by_a_promotion(outcome: Outcome) -> None:
    promoted = [entry.payload["version"] for entry in outcome.history if entry.kind == "rollout_promoted"]
    assert promoted == [1, 2]


def test_no_request_fails_and_each_is_answered_by_a_version_that_had_traffic(outcome: Outcome) -> None:
    assert outcome.failed == []
    assert {answered.version for answered in outcome.step("quiet traffic")} == {1}
    assert {answered.version for answered in outcome.step("recovery")} == {1, 2}
    assert {answered.version for answered in outcome.step("forced rollout")} == {2, 3}
    assert outcome.answered[-1].version == 2


def test_nobody_is_answered_by_the_bad_version_once_it_is_rolled_back(outcome: Outcome) -> None:
    assert 3 not in {answered.version for answered in outcome.step("thin evidence")}


def test_unchanged_traffic_is_quiet_and_drift_is_reported_once_after_two_suspect_windows(outcome: Outcome) -> None:
    assert [window.verdict for window in outcome.windows[:4]] == [WindowVerdict.QUIET] * 4
    assert [window.verdict for window in outcome.windows[4:6]] == [WindowVerdict.SUSPECT, WindowVerdict.DRIFTED]
    assert len(outcome.of(DriftDetected.topic)) == 1
    assert {window.verdict for window in outcome.windows if window.version == 2} == {WindowVerdict.QUIET}


def test_the_new_version_answers_the_new_topic_better_than_the_old_one_did(outcome: Outcome) -> None:
    before = outcome.step("drift")
    after = [
        answered for answered in outcome.step("forced rollout") + outcome.step("thin evidence") if answered.version == 2
    ]
    right = [sum(answered.label == answered.text.label for answered in part) / len(part) for part in (before, after)]
    assert right[0] < 0.45
    assert right[1] > 0.6


def test_the_retraining_learns_from_labelled_traffic_and_names_the_version_that_drifted(outcome: Outcome) -> None:
    first, second, spoiled, last = (envelope.event for envelope in outcome.of(ModelTrained.topic))
    assert [event.parent for event in (first, second, spoiled, last)] == [None, 1, None, None]
    assert {part.name for part in second.metrics.slices} == {"all", "base", "feedback"}
    assert [event.comparison and event.comparison.champion for event in (first, second, spoiled, last)] == [
        None, 1, 2, 2,
    ]  # fmt: skip


def test_evidence_promotes_rolls_back_and_its_lack_pauses(outcome: Outcome) -> None:
    verdicts: dict[int, list[Verdict]] = {}
    for envelope in outcome.of(RolloutJudged.topic):
        verdicts.setdefault(envelope.event.version, []).append(envelope.event.verdict)
    assert verdicts[2][-1] is Verdict.PROMOTE
    assert verdicts[3][-1] is Verdict.ROLL_BACK
    assert set(verdicts[4]) == {Verdict.HOLD}
    paused = next(entry for entry in outcome.history if entry.kind == "rollout_paused")
    assert (paused.actor, "thin" in paused.reason) == ("registry", True)
    assert next(entry for entry in outcome.history if entry.kind == "rollout_rolled_back").actor == "monitor"


def test_every_change_of_the_deployment_is_published_once_with_the_next_generation(outcome: Outcome) -> None:
    changes = [envelope.event for envelope in outcome.of(DeploymentChanged.topic)]
    assert [change.generation for change in changes] == list(range(2, len(changes) + 2))
    weights = [{target.version: target.weight for target in change.targets} for change in changes]
    assert [sum(parts.values()) for parts in weights[1:]] == [100] * (len(changes) - 1)
    trial = [parts[2] for parts in weights if 2 in parts and 1 in parts]
    assert trial == [0, 10, 50, 100]
    assert all(target.weight == 0 for change in changes for target in change.targets if target.role is Role.DRAINING)


def test_the_tables_are_what_the_history_gives_and_all_of_the_history_was_published(outcome: Outcome) -> None:
    assert outcome.rebuilt.differing == []
    published = [envelope.event for envelope in outcome.of(RegistryFact.topic)]
    assert [(fact.sequence, fact.hash) for fact in published] == [
        (entry.sequence, entry.hash) for entry in outcome.history
    ]


def test_nothing_ends_as_a_dead_letter(outcome: Outcome) -> None:
    assert [message.topic for message in outcome.sent if message.topic.endswith(".dlq")] == []


# --- causes ------------------------------------------------------------------------------------


def is_change(version: int, role: Role, weight: int) -> Callable[[Envelope[Any]], bool]:
    """A deployment.changed that gives the version this role and weight."""

    def fits(envelope: Envelope[Any]) -> bool:
        event = envelope.event
        matches = (version, role, weight)
        return isinstance(event, DeploymentChanged) and matches in [
            (t.version, t.role, t.weight) for t in event.targets
        ]

    return fits


def test_a_drift_can_be_followed_by_its_causes_to_the_retraining_the_rollout_and_the_recovery(outcome: Outcome) -> None:
    chain, drift = Chain(outcome.events), outcome.of(DriftDetected.topic)[0]
    trained = chain.after(drift, lambda envelope: isinstance(envelope.event, ModelTrained))
    assert trained is not None
    assert trained.causation == drift.id
    assert trained.event.parent == 1
    for weight, role in ((0, Role.CANARY), (10, Role.CANARY), (50, Role.CANARY), (100, Role.PRIMARY)):
        assert chain.after(trained, is_change(2, role, weight)) is not None, f"version 2 at {weight}%"


def test_all_that_follows_from_a_data_set_has_its_correlation_id(outcome: Outcome) -> None:
    scenario = outcome.of("dataset.ready")[0].id
    until = outcome.of("dataset.ready")[1]
    for envelope in outcome.events[: outcome.events.index(until)]:
        if isinstance(envelope.event, ModelTrained | DeploymentChanged | DriftDetected | RolloutJudged | RegistryFact):
            assert envelope.correlation_id == scenario, envelope.event


# --- again, differently, twice, and through kills ----------------------------------------------


def test_the_same_seed_gives_the_same_history_and_the_same_messages_to_the_byte(
    outcome: Outcome, run_once: RunScenario
) -> None:
    again = run_once("again", seed=SEED)
    assert again.history_bytes() == outcome.history_bytes()
    assert again.sent_bytes() == outcome.sent_bytes()


def test_another_seed_gives_another_history_of_the_same_scenario(outcome: Outcome, run_once: RunScenario) -> None:
    other = run_once("other", seed=OTHER_SEED)
    assert facts(other) == EXPECTED_FACTS
    assert other.failed == []
    assert other.history_bytes() != outcome.history_bytes()


def test_every_message_delivered_twice_changes_nothing(outcome: Outcome, run_once: RunScenario) -> None:
    twice = run_once("twice", seed=SEED, echo=True)
    assert twice.history_bytes() == outcome.history_bytes()
    assert twice.sent_bytes() == outcome.sent_bytes()


def test_services_killed_around_their_commits_change_nothing_of_what_is_decided(
    outcome: Outcome, run_once: RunScenario
) -> None:
    killed = run_once("killed", seed=SEED, kill_share=0.02)
    assert {service for service, _ in killed.kills} == {"gateway", "inference", "monitor", "registry", "trainer"}
    assert {instant for service, instant in killed.kills if service != "inference"} == {
        "before the commit",
        "after the commit",
    }
    assert killed.failed == []
    assert killed.outline() == outcome.outline()
    assert killed.deployment.aliases == outcome.deployment.aliases
    assert killed.rebuilt.differing == []
    labelled = [envelope.event.request for envelope in killed.of(FeedbackReceived.topic)]
    assert len(set(labelled)) == len(outcome.of(FeedbackReceived.topic))
