"""Versions, aliases, runs that failed, and how a history is read back."""

import pytest
from pydantic import ValidationError

from services.contracts.artifact import Precision
from services.registry.domain import (
    ModelState,
    RolloutPolicy,
    canonical_json,
    fold,
    parse,
    payload,
    state_hash,
)
from services.registry.domain import commands as ask
from services.registry.domain.state import ROLLOUT_NEXT, VERSION_NEXT, RolloutState, VersionStatus
from services.registry.errors import (
    InvalidPolicy,
    ReservedAlias,
    UnknownAlias,
    UnknownDeployment,
    UnknownModel,
    UnknownVersion,
)
from tests.unit.registry.story import MODEL, POLICY, Story, canary_of_two, serving_one, serving_two, variant


def test_a_run_is_registered_once_however_often_it_is_told() -> None:
    story = Story()
    assert story.trains("run-1")[:2] == ["version_registered", "version_passed"]
    assert story.trains("run-1") == []
    assert len(story.state.versions) == 1


def test_versions_are_numbered_in_the_order_they_come_refused_ones_too() -> None:
    story = serving_one()
    assert story.trains("run-2") == ["version_registered", "version_refused"]
    story.trains("run-3", against=1)
    assert [version.status for version in story.state.versions] == ["passed", "refused", "passed"]


def test_a_refusal_names_what_failed_as_its_reason() -> None:
    story = serving_one()
    story.trains("run-2", against=1, macro_f1=0.5)
    assert "macro-F1 0.500" in story.rows[-1][0].reason


def test_a_version_is_served_in_the_precision_that_passed() -> None:
    story = Story()
    story.trains("run-1", variants=[variant(Precision.FP32), variant(Precision.INT8, passed=False)])
    assert story.state.version(1).precision is Precision.FP32
    assert story.wanted.targets[0].precision is Precision.FP32


def test_a_version_that_is_not_to_be_deployed_waits_for_a_person() -> None:
    story = Story()
    assert story.trains("run-1", deploy=False) == ["version_registered", "version_passed"]
    assert story.state.deployments == {}
    assert "rollout_started" in story.starts(1)


def test_a_failed_run_is_remembered_once() -> None:
    story = Story()
    assert story.fails_to_train("run-1") == ["run_failed"]
    assert story.fails_to_train("run-1") == []


def test_drift_is_remembered_once_a_version() -> None:
    story = serving_one()
    assert story.drifts(1) == ["version_drifted"]
    assert story.drifts(1) == []
    assert story.drifts(7) == []
    assert story.state.version(1).drifted_at == story.now


def test_people_may_move_aliases_of_their_own() -> None:
    story = serving_one()
    assert story.do(ask.SetAlias("stable", 1, "ada", "because")) == ["alias_moved"]
    assert story.do(ask.SetAlias("stable", 1, "ada", "because")) == []
    assert story.state.resolve("@stable").number == 1
    assert story.do(ask.SetAlias("stable", None, "ada", "because")) == ["alias_moved"]
    with pytest.raises(UnknownAlias):
        story.do(ask.SetAlias("stable", None, "ada", "because"))


@pytest.mark.parametrize("alias", ["champion", "challenger", "previous"])
def test_the_aliases_of_rollouts_are_not_moved_by_hand(alias: str) -> None:
    with pytest.raises(ReservedAlias):
        serving_one().do(ask.SetAlias(alias, 1, "ada", "because"))


def test_a_version_is_named_by_number_or_alias() -> None:
    state = serving_two().state
    assert state.resolve("1").number == 1
    assert state.resolve("@champion").number == 2
    assert state.aliases_of(1) == ["previous"]
    for text in ("0", "3", "champion", "-1", "²", "1" * 30):
        with pytest.raises(UnknownVersion):
            state.resolve(text)
    with pytest.raises(UnknownAlias):
        state.resolve("@nobody")


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(UnknownModel, match="chapters"):
        Story().starts(1)
    with pytest.raises(UnknownVersion):
        serving_one().starts(9)
    with pytest.raises(UnknownDeployment):
        serving_one().do(ask.StartRollout("elsewhere", 1, "ada", "because"))


def test_every_state_of_a_lifecycle_has_its_row_and_the_ends_lead_nowhere() -> None:
    assert set(VERSION_NEXT) == set(VersionStatus)
    assert set(ROLLOUT_NEXT) == set(RolloutState)
    assert {state for state, following in ROLLOUT_NEXT.items() if not following} == {
        RolloutState.PROMOTED,
        RolloutState.ROLLED_BACK,
    }


def test_a_fact_is_read_back_as_it_was_written() -> None:
    for decided, _ in serving_two().rows:
        assert parse(decided.fact.kind, payload(decided.fact)) == decided.fact
    with pytest.raises(ValidationError):
        parse("version_forgotten", {"model": MODEL})


def test_the_fold_of_the_history_is_the_state_at_any_time() -> None:
    story = canary_of_two()
    assert fold(MODEL, story.rows) == story.state
    assert fold(MODEL, story.rows[:2]).champion is None


def test_a_state_read_back_from_its_json_has_the_same_hash() -> None:
    state = canary_of_two().state
    again = ModelState.model_validate_json(canonical_json(state))
    assert again == state
    assert state_hash(again) == state_hash(state)
    assert state_hash(state) != state_hash(serving_one().state)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"weights": [50, 10]}, "grow"),
        ({"weights": [0]}, "from 1 to 99"),
        ({"weights": [100]}, "from 1 to 99"),
        ({"bake_seconds": 600.0}, "longer than bake_seconds"),
        ({"bake_seconds": -1.0}, "bake_seconds: "),
        ({"mirror": float("nan")}, "mirror: "),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changed: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidPolicy, match=problem):
        POLICY.changed(**changed)


def test_a_policy_keeps_what_is_not_changed() -> None:
    assert POLICY.changed(bake_seconds=5.0, weights=None) == RolloutPolicy(**{**POLICY.model_dump(), "bake_seconds": 5})
