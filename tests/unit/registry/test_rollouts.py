"""How a version takes over, waits, stops and goes back."""

from datetime import timedelta
from typing import Any

import pytest

from services.contracts.events import Verdict
from services.registry.domain import SpecChanges, VersionRef, commands
from services.registry.errors import (
    AlreadyServing,
    GateRefused,
    IllegalMove,
    NoRollout,
    NothingToRollBackTo,
    NotReadyYet,
    RolloutUnderWay,
    StaleComparison,
    UnknownDeployment,
)
from tests.unit.registry.scenario import MODEL, POLICY, Scenario, canary_of_two, serving_one, serving_two


def test_the_first_version_gets_all_traffic_as_soon_as_it_is_ready_and_not_before() -> None:
    scenario = Scenario()
    scenario.trains("run-1")
    assert (scenario.weights, scenario.roles) == ({1: 0}, {1: "canary"})
    assert scenario.desired.rollout is not None
    assert (scenario.desired.rollout.state, scenario.desired.rollout.steps) == ("loading", 1)
    scenario.reports(1, "loading")
    assert scenario.weights == {1: 0}
    assert scenario.reports(1) == ["rollout_promoted"]
    assert (scenario.weights, scenario.roles) == ({1: 100}, {1: "primary"})
    assert scenario.aliases == {"champion": 1}
    assert scenario.desired.rollout is None


def test_a_later_version_loads_while_the_champion_serves_everything() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    assert scenario.weights == {1: 100, 2: 0}
    assert scenario.desired.mirror == 0
    assert scenario.aliases == {"champion": 1, "challenger": 2}


def test_a_ready_version_gets_its_first_weight_and_is_mirrored() -> None:
    scenario = canary_of_two()
    assert scenario.weights == {1: 90, 2: 10}
    assert scenario.desired.mirror == POLICY.mirror
    assert scenario.desired.rollout is not None
    assert (scenario.desired.rollout.state, scenario.desired.rollout.step, scenario.desired.rollout.steps) == (
        "canary",
        0,
        2,
    )


def test_traffic_waits_for_every_live_replica() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    assert scenario.reports(2, missing=1) == []
    assert scenario.reports(2, missing=0) == ["rollout_loaded"]


def test_a_report_from_before_the_rollout_counts_for_nothing() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    assert scenario.reports(2, "failed", seen=scenario.rollout.generation - 1) == []
    assert scenario.reports(2, seen=scenario.rollout.generation - 1) == []


def test_a_version_that_fails_to_load_is_rolled_back_and_the_old_one_serves_on() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    assert scenario.reports(2, "failed") == ["rollout_rolled_back"]
    assert scenario.weights == {1: 100}
    assert "failed to load on replica-1: bad hash" in scenario.rollout.reason


def test_bake_time_alone_does_not_move_a_canary() -> None:
    scenario = canary_of_two()
    assert scenario.wait(60) == ["step_baked"]
    assert scenario.weights == {1: 90, 2: 10}


def test_a_promote_verdict_before_the_bake_time_is_over_is_recorded() -> None:
    scenario = canary_of_two()
    scenario.wait(30)
    assert scenario.judges(Verdict.PROMOTE) == ["verdict_recorded"]
    assert scenario.judges(Verdict.PROMOTE) == []
    assert scenario.wait(29) == []
    assert scenario.wait(1) == ["rollout_advanced"]
    assert scenario.weights == {1: 50, 2: 50}


def test_a_promote_verdict_after_the_bake_time_moves_on_at_once() -> None:
    scenario = canary_of_two()
    scenario.wait(90)
    assert scenario.judges(Verdict.PROMOTE) == ["rollout_advanced"]


def test_a_later_hold_takes_a_promote_verdict_back() -> None:
    scenario = canary_of_two()
    scenario.judges(Verdict.PROMOTE)
    assert scenario.judges(Verdict.HOLD) == ["verdict_recorded"]
    assert scenario.wait(60) == ["step_baked"]


def test_a_promote_verdict_on_too_few_requests_does_not_count() -> None:
    scenario = canary_of_two()
    scenario.wait(60)
    assert scenario.judges(Verdict.PROMOTE, requests=49) == []
    assert scenario.judges(Verdict.PROMOTE, requests=50) == ["rollout_advanced"]


def test_a_verdict_on_another_step_or_rollout_does_not_count() -> None:
    scenario = canary_of_two()
    scenario.wait(60)
    assert scenario.judges(Verdict.PROMOTE, step=1) == []
    assert scenario.judges(Verdict.ROLL_BACK, rollout="chapters-r1") == []
    assert scenario.judges(Verdict.PROMOTE) == ["rollout_advanced"]
    assert scenario.judges(Verdict.PROMOTE, step=0) == []


def test_after_the_last_step_the_version_is_champion_and_the_old_one_drains_and_drops() -> None:
    scenario = canary_of_two()
    for _ in range(2):
        scenario.judges(Verdict.PROMOTE)
        scenario.wait(60)
    assert (scenario.weights, scenario.roles) == ({1: 0, 2: 100}, {1: "draining", 2: "primary"})
    assert scenario.aliases == {"champion": 2, "previous": 1}
    assert scenario.rollout.evidence
    assert scenario.wait(29) == []
    assert scenario.wait(1) == ["target_dropped"]
    assert scenario.weights == {2: 100}


@pytest.mark.parametrize("step", [0, 1])
def test_a_roll_back_verdict_acts_at_once_in_any_step(step: int) -> None:
    scenario = canary_of_two()
    for _ in range(step):
        scenario.judges(Verdict.PROMOTE)
        scenario.wait(60)
    assert scenario.judges(Verdict.ROLL_BACK, step=0, requests=3)[0] == "rollout_rolled_back"
    assert (scenario.weights, scenario.roles) == ({1: 100, 2: 0}, {1: "primary", 2: "draining"})
    assert scenario.rollout.evidence[0].decision == "worse"
    assert scenario.aliases == {"champion": 1}
    assert scenario.wait(30) == ["target_dropped"]


def test_a_canary_that_burns_its_error_budget_is_rolled_back_but_a_champion_is_not() -> None:
    scenario = canary_of_two()
    assert scenario.breaches(1) == []
    assert scenario.breaches(2)[0] == "rollout_rolled_back"


def test_thin_evidence_pauses_rather_than_guesses() -> None:
    scenario = canary_of_two()
    assert scenario.wait(600) == ["step_baked", "rollout_paused"]
    assert scenario.weights == {1: 90, 2: 10}
    assert "too thin" in scenario.rollout.reason
    assert scenario.timers == []


def test_a_paused_canary_does_not_move_on_but_can_still_be_rolled_back() -> None:
    scenario = canary_of_two()
    scenario.wait(60)
    scenario.pauses()
    assert scenario.judges(Verdict.PROMOTE) == ["verdict_recorded"]
    assert scenario.judges(Verdict.ROLL_BACK)[0] == "rollout_rolled_back"


def test_resuming_goes_on_where_it_stopped() -> None:
    scenario = canary_of_two()
    scenario.wait(60)
    scenario.pauses()
    scenario.judges(Verdict.PROMOTE)
    assert scenario.resumes() == ["rollout_resumed", "rollout_advanced"]
    scenario.pauses()
    assert scenario.resumes() == ["rollout_resumed"]
    assert scenario.wait(60) == ["step_baked"]


def test_a_step_is_known_by_the_generation_in_which_it_began() -> None:
    scenario = canary_of_two()
    assert scenario.rollout.entered == scenario.deployment.generation
    first = scenario.rollout.entered
    scenario.judges(Verdict.PROMOTE)
    scenario.wait(60)
    assert first < scenario.rollout.entered == scenario.deployment.generation


def test_a_timer_set_before_a_pause_does_not_count_after_it() -> None:
    scenario = canary_of_two()
    entered = scenario.rollout.entered
    scenario.pauses()
    scenario.resumes()
    assert scenario.do(commands.BakeElapsed(MODEL, scenario.rollout.id, entered)) == []
    assert scenario.do(commands.StepTimedOut(MODEL, scenario.rollout.id, entered)) == []


def test_a_person_may_promote_a_canary_without_evidence_but_not_one_that_still_loads() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    with pytest.raises(NotReadyYet):
        scenario.promotes()
    scenario.reports(2)
    assert scenario.promotes()[0] == "rollout_promoted"
    assert scenario.weights == {1: 0, 2: 100}


def test_moves_that_make_no_sense_are_refused() -> None:
    scenario = serving_one()
    for move in (scenario.pauses, scenario.resumes, scenario.promotes):
        with pytest.raises(NoRollout):
            move()
    scenario.trains("run-2", against=1)
    with pytest.raises(IllegalMove, match="loading and cannot become paused"):
        scenario.pauses()
    scenario.reports(2)
    with pytest.raises(IllegalMove, match="canary and cannot become resumed"):
        scenario.resumes()
    scenario.pauses()
    with pytest.raises(IllegalMove, match="paused and cannot become paused"):
        scenario.pauses()


def test_there_is_one_rollout_at_a_time() -> None:
    scenario = canary_of_two()
    scenario.trains("run-3", against=1)
    with pytest.raises(RolloutUnderWay, match="chapters-r2 of version 2 is still canary"):
        scenario.starts(3)


def test_what_serves_already_is_not_rolled_out() -> None:
    with pytest.raises(AlreadyServing):
        serving_one().starts(1)


def test_a_refused_version_is_rolled_out_only_with_skip_gate_and_the_history_says_so() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1, macro_f1=0.4)
    with pytest.raises(GateRefused) as refused:
        scenario.starts(2)
    assert "skip_gate" in (refused.value.hint or "")
    assert "floor" in str(refused.value)
    scenario.starts(2, skip_gate=True)
    assert scenario.rollout.gate_skipped


def test_a_version_judged_against_a_former_champion_has_to_be_retrained() -> None:
    scenario = canary_of_two()
    scenario.trains("run-3", against=1)
    scenario.promotes()
    with pytest.raises(StaleComparison, match="judged against version 1, but version 2 serves now"):
        scenario.starts(3)
    scenario.starts(3, skip_gate=True)
    assert scenario.rollout.gate_skipped


def test_skip_gate_is_not_noted_where_nothing_was_skipped() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1, deploy=False)
    scenario.starts(2, skip_gate=True)
    assert not scenario.rollout.gate_skipped


def test_a_version_that_passed_during_another_rollout_gets_its_turn_when_that_one_fails() -> None:
    scenario = canary_of_two()
    assert scenario.trains("run-3", against=1) == ["version_registered", "version_passed"]
    assert "rollout_started" in scenario.judges(Verdict.ROLL_BACK)
    assert (scenario.rollout.version.version, scenario.rollout.id) == (3, "chapters-r3")
    assert scenario.roles == {1: "primary", 2: "draining", 3: "canary"}


def test_a_version_that_waited_is_left_alone_when_a_person_stops_the_rollout_or_it_is_overtaken() -> None:
    stopped = canary_of_two()
    stopped.trains("run-3", against=1)
    assert "rollout_started" not in stopped.rolls_back()
    overtaken = canary_of_two()
    overtaken.trains("run-3", against=1)
    assert "rollout_started" not in overtaken.promotes()


@pytest.mark.parametrize(
    "how",
    [{"deploy": False}, {"macro_f1": 0.3}, {"against": None}],
    ids=["it is not to be rolled out", "it failed its gate", "it was compared with nobody"],
)
def test_what_may_not_start_by_itself_does_not_start_when_another_ends(how: dict[str, Any]) -> None:
    scenario = canary_of_two()
    scenario.trains("run-3", **{"against": 1, **how})
    assert "rollout_started" not in scenario.judges(Verdict.ROLL_BACK)


def test_nothing_starts_by_itself_where_rollouts_are_not_automatic() -> None:
    scenario = canary_of_two()
    scenario.trains("run-3", against=1)
    scenario.changes(SpecChanges(automatic=False))
    assert "rollout_started" not in scenario.judges(Verdict.ROLL_BACK)


def test_a_version_that_was_rolled_back_does_not_start_again_by_itself() -> None:
    scenario = canary_of_two()
    scenario.trains("run-3", against=1)
    scenario.judges(Verdict.ROLL_BACK)
    scenario.reports(3)
    assert scenario.judges(Verdict.ROLL_BACK) == ["rollout_rolled_back"]


def test_the_newest_that_waited_starts_and_not_one_before_it() -> None:
    scenario = canary_of_two()
    scenario.trains("run-3", against=1)
    scenario.trains("run-4", against=1)
    scenario.judges(Verdict.ROLL_BACK)
    assert scenario.rollout.version.version == 4


def test_a_version_that_waited_starts_when_another_is_not_ready_in_time() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    scenario.trains("run-3", against=1)
    assert scenario.wait(1800) == ["rollout_rolled_back", "rollout_started"]
    assert scenario.rollout.version.version == 3


def test_one_call_rolls_a_rollout_back() -> None:
    scenario = canary_of_two()
    assert scenario.rolls_back() == ["rollout_rolled_back"]
    assert (scenario.weights, scenario.rollout.actor, scenario.rollout.reason) == ({1: 100, 2: 0}, "ada", "because")


def test_one_call_returns_at_once_to_a_version_that_still_drains() -> None:
    scenario = serving_two()
    assert scenario.rolls_back()[0] == "deployment_rolled_back"
    assert (scenario.weights, scenario.roles) == ({1: 100, 2: 0}, {1: "primary", 2: "draining"})
    assert scenario.aliases == {"champion": 1}


def test_one_call_returns_to_a_version_that_has_to_be_loaded_first_while_the_current_one_serves() -> None:
    scenario = serving_two()
    scenario.wait(30)
    scenario.rolls_back()
    assert (scenario.weights, scenario.rollout.returning) == ({1: 0, 2: 100}, True)
    assert scenario.rolls_back() == []
    assert scenario.reports(1)[0] == "rollout_promoted"
    assert scenario.weights == {1: 100, 2: 0}
    assert scenario.aliases == {"champion": 1}


def test_the_way_back_ends_at_the_first_version() -> None:
    scenario = serving_two()
    scenario.rolls_back()
    with pytest.raises(NothingToRollBackTo):
        scenario.rolls_back()
    never = Scenario()
    never.trains("run-1", deploy=False)
    with pytest.raises(UnknownDeployment):
        never.rolls_back()


def test_a_drain_timer_of_an_earlier_drain_drops_nothing() -> None:
    scenario = serving_two()
    drained = scenario.timers[0]
    scenario.rolls_back()
    assert (
        scenario.do(commands.DrainElapsed(MODEL, VersionRef(model=MODEL, version=1), int(drained.payload["since"])))
        == []
    )
    assert scenario.weights == {1: 100, 2: 0}


def test_a_version_that_drains_can_be_rolled_out_again() -> None:
    scenario = canary_of_two()
    scenario.rolls_back()
    scenario.starts(2)
    assert scenario.roles == {1: "primary", 2: "canary"}
    assert scenario.wait(1700) == []


def test_timers_follow_from_the_state_alone() -> None:
    scenario = canary_of_two()
    due = {spec.kind: spec.due - scenario.now for spec in scenario.timers}
    assert due == {"rollout.bake": timedelta(seconds=60), "rollout.step_timeout": timedelta(seconds=600)}
    scenario.promotes()
    assert [spec.kind for spec in scenario.timers] == ["deployment.drain"]


def test_each_change_is_published_once_with_its_reason() -> None:
    scenario = canary_of_two()
    assert [change.generation for change in scenario.published] == [2, 3, 4, 5]
    assert scenario.published[-1].reason == "version 2 is ready on replica-1"
    scenario.judges(Verdict.HOLD)
    scenario.judges(Verdict.PROMOTE)
    assert len(scenario.published) == 4
