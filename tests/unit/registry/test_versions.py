"""Versions, aliases, runs that failed, and how a history is read back."""

import pytest
from pydantic import ValidationError

from services.contracts.artifact import Precision
from services.registry.domain import RolloutPolicy, canonical_json, commands, parse, payload, state_hash
from services.registry.domain.evolve import fold_deployments
from services.registry.domain.policy import PolicyChanges
from services.registry.domain.state import ROLLOUT_NEXT, VERSION_NEXT, RolloutState, VersionStatus, view
from services.registry.errors import (
    InvalidPolicy,
    ReservedAlias,
    UnknownAlias,
    UnknownDeployment,
    UnknownModel,
    UnknownVersion,
)
from tests.unit.registry.scenario import MODEL, POLICY, Scenario, canary_of_two, serving_one, serving_two, variant


def test_a_run_is_registered_once_however_often_it_is_announced() -> None:
    scenario = Scenario()
    assert scenario.trains("run-1")[:2] == ["version_registered", "version_passed"]
    assert scenario.trains("run-1") == []
    assert len(scenario.state.versions) == 1


def test_versions_are_numbered_in_the_order_they_come_refused_ones_too() -> None:
    scenario = serving_one()
    assert scenario.trains("run-2") == ["version_registered", "version_refused"]
    scenario.trains("run-3", against=1)
    assert [version.status for version in scenario.state.versions] == ["passed", "refused", "passed"]


def test_a_refusal_names_what_failed_as_its_reason() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1, macro_f1=0.5)
    assert "macro-F1 0.500" in scenario.rows[-1][0].reason


def test_a_version_is_served_in_the_precision_that_passed() -> None:
    scenario = Scenario()
    scenario.trains("run-1", variants=[variant(Precision.FP32), variant(Precision.INT8, passed=False)])
    assert scenario.state.version(1).precision is Precision.FP32
    assert scenario.desired.targets[0].precision is Precision.FP32


def test_a_version_that_is_not_to_be_deployed_waits_for_a_person() -> None:
    scenario = Scenario()
    assert scenario.trains("run-1", deploy=False) == ["version_registered", "version_passed"]
    assert scenario.deployments == {}
    assert "rollout_started" in scenario.starts(1)


def test_a_failed_run_is_recorded_once() -> None:
    scenario = Scenario()
    assert scenario.fails_to_train("run-1") == ["run_failed"]
    assert scenario.fails_to_train("run-1") == []


def test_drift_is_recorded_once_a_version() -> None:
    scenario = serving_one()
    assert scenario.drifts(1) == ["version_drifted"]
    assert scenario.drifts(1) == []
    assert scenario.drifts(7) == []
    assert scenario.state.version(1).drifted_at == scenario.now


def test_people_may_move_aliases_of_their_own() -> None:
    scenario = serving_one()
    assert scenario.do(commands.SetAlias("stable", 1, "ada", "because")) == ["alias_moved"]
    assert scenario.do(commands.SetAlias("stable", 1, "ada", "because")) == []
    assert scenario.aliases["stable"] == 1
    assert scenario.do(commands.SetAlias("stable", None, "ada", "because")) == ["alias_moved"]
    with pytest.raises(UnknownAlias):
        scenario.do(commands.SetAlias("stable", None, "ada", "because"))


@pytest.mark.parametrize("alias", ["champion", "challenger", "previous"])
def test_the_aliases_of_rollouts_are_not_moved_by_hand(alias: str) -> None:
    with pytest.raises(ReservedAlias):
        serving_one().do(commands.SetAlias(alias, 1, "ada", "because"))


def test_a_version_is_named_by_number_or_alias() -> None:
    scenario = serving_two()
    shown = view(scenario.state, scenario.deployment)
    assert shown.resolve("1").number == 1
    assert shown.resolve("@champion").number == 2
    assert shown.aliases_of(1) == ["previous"]
    for text in ("0", "3", "champion", "-1", "²", "1" * 30):
        with pytest.raises(UnknownVersion):
            shown.resolve(text)
    with pytest.raises(UnknownAlias):
        shown.resolve("@nobody")


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(UnknownDeployment, match="chapters"):
        Scenario().starts(1)
    with pytest.raises(UnknownModel, match="essays"):
        Scenario().creates(model="essays")
    with pytest.raises(UnknownVersion):
        serving_one().starts(9)
    with pytest.raises(UnknownDeployment):
        serving_one().do(commands.StartRollout("elsewhere", 1, "ada", "because"))


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
    scenario = canary_of_two()
    (again,) = fold_deployments(scenario.rows)
    assert again == scenario.deployment
    (earlier,) = fold_deployments(scenario.rows[:4])
    assert earlier.version is None


@pytest.mark.parametrize("of", ["state", "deployment"])
def test_a_state_read_back_from_its_json_has_the_same_hash(of: str) -> None:
    state = getattr(canary_of_two(), of)
    again = type(state).model_validate_json(canonical_json(state))
    assert again == state
    assert state_hash(again) == state_hash(state)
    assert state_hash(state) != state_hash(getattr(serving_one(), of))


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
        POLICY.changed(PolicyChanges.model_validate(changed))


def test_a_policy_keeps_what_is_not_changed() -> None:
    assert POLICY.changed(PolicyChanges(bake_seconds=5.0)) == RolloutPolicy(
        **{**POLICY.model_dump(), "bake_seconds": 5}
    )
