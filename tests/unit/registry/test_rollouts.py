"""How a version takes over, waits, stops and goes back."""

from datetime import timedelta

import pytest

from services.contracts.events import Verdict
from services.registry.domain import commands as ask
from services.registry.domain import timers
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
from tests.unit.registry.story import MODEL, POLICY, Story, canary_of_two, serving_one, serving_two


def test_the_first_version_gets_all_traffic_as_soon_as_it_is_ready_and_not_before() -> None:
    story = Story()
    story.trains("run-1")
    assert (story.weights, story.roles) == ({1: 0}, {1: "canary"})
    assert story.wanted.rollout is not None
    assert (story.wanted.rollout.state, story.wanted.rollout.steps) == ("loading", 1)
    story.reports(1, "loading")
    assert story.weights == {1: 0}
    assert story.reports(1) == ["rollout_promoted", "alias_moved", "alias_moved"]
    assert (story.weights, story.roles) == ({1: 100}, {1: "primary"})
    assert story.state.aliases == {"champion": 1}
    assert story.wanted.rollout is None


def test_a_later_version_loads_while_the_champion_serves_everything() -> None:
    story = serving_one()
    story.trains("run-2", against=1)
    assert story.weights == {1: 100, 2: 0}
    assert story.wanted.mirror == 0
    assert story.state.aliases == {"champion": 1, "challenger": 2}


def test_a_ready_version_gets_its_first_weight_and_is_mirrored() -> None:
    story = canary_of_two()
    assert story.weights == {1: 90, 2: 10}
    assert story.wanted.mirror == POLICY.mirror
    assert story.wanted.rollout is not None
    assert (story.wanted.rollout.state, story.wanted.rollout.step, story.wanted.rollout.steps) == ("canary", 0, 2)


def test_traffic_waits_for_every_live_replica() -> None:
    story = serving_one()
    story.trains("run-2", against=1)
    assert story.reports(2, waiting=frozenset({"replica-2"})) == []
    assert story.reports(2, waiting=frozenset({"replica-1"})) == ["rollout_loaded"]


def test_a_report_from_before_the_rollout_counts_for_nothing() -> None:
    story = serving_one()
    story.trains("run-2", against=1)
    assert story.reports(2, "failed", seen=story.rollout.generation - 1) == []
    assert story.reports(2, seen=story.rollout.generation - 1) == []


def test_a_version_that_fails_to_load_is_rolled_back_and_the_old_one_serves_on() -> None:
    story = serving_one()
    story.trains("run-2", against=1)
    assert story.reports(2, "failed") == ["rollout_rolled_back", "alias_moved"]
    assert story.weights == {1: 100}
    assert "failed to load on replica-1: bad hash" in story.rollout.reason


def test_bake_time_alone_does_not_move_a_canary() -> None:
    story = canary_of_two()
    assert story.wait(60) == ["step_baked"]
    assert story.weights == {1: 90, 2: 10}


def test_a_promote_verdict_before_the_bake_time_is_over_is_remembered() -> None:
    story = canary_of_two()
    story.wait(30)
    assert story.judges(Verdict.PROMOTE) == ["verdict_recorded"]
    assert story.judges(Verdict.PROMOTE) == []
    assert story.wait(29) == []
    assert story.wait(1) == ["rollout_advanced"]
    assert story.weights == {1: 50, 2: 50}


def test_a_promote_verdict_after_the_bake_time_moves_on_at_once() -> None:
    story = canary_of_two()
    story.wait(90)
    assert story.judges(Verdict.PROMOTE) == ["rollout_advanced"]


def test_a_later_hold_takes_a_promote_verdict_back() -> None:
    story = canary_of_two()
    story.judges(Verdict.PROMOTE)
    assert story.judges(Verdict.HOLD) == ["verdict_recorded"]
    assert story.wait(60) == ["step_baked"]


def test_a_promote_verdict_on_too_few_requests_does_not_count() -> None:
    story = canary_of_two()
    story.wait(60)
    assert story.judges(Verdict.PROMOTE, requests=49) == []
    assert story.judges(Verdict.PROMOTE, requests=50) == ["rollout_advanced"]


def test_a_verdict_on_another_step_or_rollout_does_not_count() -> None:
    story = canary_of_two()
    story.wait(60)
    assert story.judges(Verdict.PROMOTE, step=1) == []
    assert story.judges(Verdict.ROLL_BACK, rollout="chapters-r1") == []
    assert story.judges(Verdict.PROMOTE) == ["rollout_advanced"]
    assert story.judges(Verdict.PROMOTE, step=0) == []


def test_after_the_last_step_the_version_is_champion_and_the_old_one_drains_and_drops() -> None:
    story = canary_of_two()
    for _ in range(2):
        story.judges(Verdict.PROMOTE)
        story.wait(60)
    assert (story.weights, story.roles) == ({1: 0, 2: 100}, {1: "draining", 2: "primary"})
    assert story.state.aliases == {"champion": 2, "previous": 1}
    assert story.rollout.evidence
    assert story.wait(29) == []
    assert story.wait(1) == ["target_dropped"]
    assert story.weights == {2: 100}


@pytest.mark.parametrize("step", [0, 1])
def test_a_roll_back_verdict_acts_at_once_in_any_step(step: int) -> None:
    story = canary_of_two()
    for _ in range(step):
        story.judges(Verdict.PROMOTE)
        story.wait(60)
    assert story.judges(Verdict.ROLL_BACK, step=0, requests=3)[0] == "rollout_rolled_back"
    assert (story.weights, story.roles) == ({1: 100, 2: 0}, {1: "primary", 2: "draining"})
    assert story.rollout.evidence[0].decision == "worse"
    assert story.state.aliases == {"champion": 1}
    assert story.wait(30) == ["target_dropped"]


def test_a_canary_that_burns_its_error_budget_is_rolled_back_but_a_champion_is_not() -> None:
    story = canary_of_two()
    assert story.breaches(1) == []
    assert story.breaches(2)[0] == "rollout_rolled_back"


def test_thin_evidence_pauses_rather_than_guesses() -> None:
    story = canary_of_two()
    assert story.wait(600) == ["step_baked", "rollout_paused"]
    assert story.weights == {1: 90, 2: 10}
    assert "too thin" in story.rollout.reason
    assert timers(story.state) == {}


def test_a_paused_canary_does_not_move_on_but_can_still_be_rolled_back() -> None:
    story = canary_of_two()
    story.wait(60)
    story.pauses()
    assert story.judges(Verdict.PROMOTE) == ["verdict_recorded"]
    assert story.judges(Verdict.ROLL_BACK)[0] == "rollout_rolled_back"


def test_resuming_goes_on_where_it_stopped() -> None:
    story = canary_of_two()
    story.wait(60)
    story.pauses()
    story.judges(Verdict.PROMOTE)
    assert story.resumes() == ["rollout_resumed", "rollout_advanced"]
    story.pauses()
    assert story.resumes() == ["rollout_resumed"]
    assert story.wait(60) == ["step_baked"]


def test_a_timer_set_before_a_pause_does_not_count_after_it() -> None:
    story = canary_of_two()
    entered = story.rollout.entered
    story.pauses()
    story.resumes()
    assert story.do(ask.BakeElapsed(MODEL, story.rollout.id, entered)) == []
    assert story.do(ask.StepTimedOut(MODEL, story.rollout.id, entered)) == []


def test_a_person_may_promote_a_canary_without_evidence_but_not_one_that_still_loads() -> None:
    story = serving_one()
    story.trains("run-2", against=1)
    with pytest.raises(NotReadyYet):
        story.promotes()
    story.reports(2)
    assert story.promotes()[0] == "rollout_promoted"
    assert story.weights == {1: 0, 2: 100}


def test_moves_that_make_no_sense_are_refused() -> None:
    story = serving_one()
    for move in (story.pauses, story.resumes, story.promotes):
        with pytest.raises(NoRollout):
            move()
    story.trains("run-2", against=1)
    with pytest.raises(IllegalMove, match="loading and cannot become paused"):
        story.pauses()
    story.reports(2)
    with pytest.raises(IllegalMove, match="canary and cannot become resumed"):
        story.resumes()
    story.pauses()
    with pytest.raises(IllegalMove, match="paused and cannot become paused"):
        story.pauses()


def test_there_is_one_rollout_at_a_time() -> None:
    story = canary_of_two()
    story.trains("run-3", against=1)
    with pytest.raises(RolloutUnderWay, match="chapters-r2 of version 2 is still canary"):
        story.starts(3)


def test_what_serves_already_is_not_rolled_out() -> None:
    with pytest.raises(AlreadyServing):
        serving_one().starts(1)


def test_a_refused_version_is_rolled_out_only_with_skip_gate_and_the_history_says_so() -> None:
    story = serving_one()
    story.trains("run-2", against=1, macro_f1=0.4)
    with pytest.raises(GateRefused) as refused:
        story.starts(2)
    assert "skip_gate" in (refused.value.hint or "")
    assert "floor" in str(refused.value)
    story.starts(2, skip_gate=True)
    assert story.rollout.gate_skipped


def test_a_version_judged_against_a_former_champion_has_to_be_retrained() -> None:
    story = canary_of_two()
    story.trains("run-3", against=1)
    story.promotes()
    with pytest.raises(StaleComparison, match="judged against version 1, but version 2 serves now"):
        story.starts(3)
    story.starts(3, skip_gate=True)
    assert story.rollout.gate_skipped


def test_skip_gate_is_not_noted_where_nothing_was_skipped() -> None:
    story = serving_one()
    story.trains("run-2", against=1, deploy=False)
    story.starts(2, skip_gate=True)
    assert not story.rollout.gate_skipped


def test_a_version_that_passed_during_another_rollout_gets_its_turn_when_that_one_fails() -> None:
    story = canary_of_two()
    assert story.trains("run-3", against=1) == ["version_registered", "version_passed"]
    assert "rollout_started" in story.judges(Verdict.ROLL_BACK)
    assert (story.rollout.version, story.rollout.id) == (3, "chapters-r3")
    assert story.roles == {1: "primary", 2: "draining", 3: "canary"}


def test_a_version_that_waited_is_left_alone_when_a_person_stops_the_rollout_or_it_is_overtaken() -> None:
    stopped = canary_of_two()
    stopped.trains("run-3", against=1)
    assert "rollout_started" not in stopped.rolls_back()
    overtaken = canary_of_two()
    overtaken.trains("run-3", against=1)
    assert "rollout_started" not in overtaken.promotes()


def test_one_call_rolls_a_rollout_back() -> None:
    story = canary_of_two()
    assert story.rolls_back() == ["rollout_rolled_back", "alias_moved"]
    assert (story.weights, story.rollout.actor, story.rollout.reason) == ({1: 100, 2: 0}, "ada", "because")


def test_one_call_returns_at_once_to_a_version_that_still_drains() -> None:
    story = serving_two()
    assert story.rolls_back()[0] == "deployment_rolled_back"
    assert (story.weights, story.roles) == ({1: 100, 2: 0}, {1: "primary", 2: "draining"})
    assert story.state.aliases == {"champion": 1}


def test_one_call_returns_to_a_version_that_has_to_be_loaded_first_while_the_present_one_serves() -> None:
    story = serving_two()
    story.wait(30)
    story.rolls_back()
    assert (story.weights, story.rollout.returning) == ({1: 0, 2: 100}, True)
    assert story.rolls_back() == []
    assert story.reports(1)[0] == "rollout_promoted"
    assert story.weights == {1: 100, 2: 0}
    assert story.state.aliases == {"champion": 1}


def test_the_way_back_ends_at_the_first_version() -> None:
    story = serving_two()
    story.rolls_back()
    with pytest.raises(NothingToRollBackTo):
        story.rolls_back()
    never = Story()
    never.trains("run-1", deploy=False)
    with pytest.raises(UnknownDeployment):
        never.rolls_back()


def test_a_drain_timer_of_an_earlier_drain_drops_nothing() -> None:
    story = serving_two()
    drained = next(iter(timers(story.state).values()))
    story.rolls_back()
    assert story.do(ask.DrainElapsed(MODEL, 1, int(drained.payload["since"]))) == []
    assert story.weights == {1: 100, 2: 0}


def test_a_version_that_drains_can_be_rolled_out_again() -> None:
    story = canary_of_two()
    story.rolls_back()
    story.starts(2)
    assert story.roles == {1: "primary", 2: "canary"}
    assert story.wait(3600) == []


def test_timers_follow_from_the_state_alone() -> None:
    story = canary_of_two()
    due = {spec.kind: spec.due - story.now for spec in timers(story.state).values()}
    assert due == {"rollout.bake": timedelta(seconds=60), "rollout.step_timeout": timedelta(seconds=600)}
    story.promotes()
    assert [spec.kind for spec in timers(story.state).values()] == ["deployment.drain"]


def test_each_change_is_told_once_with_the_reason_of_it() -> None:
    story = canary_of_two()
    assert [told.generation for told in story.told] == [1, 2, 3, 4]
    assert story.told[-1].reason == "version 2 is ready on replica-1"
    story.judges(Verdict.HOLD)
    story.judges(Verdict.PROMOTE)
    assert len(story.told) == 4
