"""How a deployment is stopped, stays stopped, and comes back when it is asked to."""

import json

import pytest

from services.registry.domain import ModelState, canonical_json, timers
from services.registry.domain.desired import DRAIN
from services.registry.errors import NothingToRollBackTo, UnknownDeployment
from tests.unit.registry.story import MODEL, Story, canary_of_two, serving_one, serving_two


def test_a_stopped_deployment_serves_nothing_and_what_was_loaded_drains() -> None:
    story = serving_one()
    before = story.deployment.generation
    assert story.stops() == ["deployment_stopped", "alias_moved", "alias_moved"]
    assert (story.weights, story.roles) == ({1: 0}, {1: "draining"})
    assert story.deployment.generation == before + 1
    assert story.wanted.rollout is None
    assert {spec.kind for spec in timers(story.state).values()} == {DRAIN}
    assert story.wait(30) == ["target_dropped"]
    assert story.wanted.targets == []


def test_nobody_is_champion_then_and_who_served_last_is_previous() -> None:
    story = serving_two()
    story.stops()
    assert story.state.aliases == {"previous": 2}


def test_a_canary_is_rolled_back_before_the_deployment_stops() -> None:
    story = canary_of_two()
    told = len(story.told)
    assert story.stops()[:3] == ["rollout_rolled_back", "alias_moved", "deployment_stopped"]
    assert story.roles == {1: "draining", 2: "draining"}
    assert story.wanted.mirror == 0
    assert len(story.told) == told + 1, "nobody is told of a moment in which the champion serves alone"
    story.wait(30)
    assert story.wanted.targets == []


def test_a_version_that_still_loads_is_let_go_at_once() -> None:
    story = Story()
    story.trains("run-1")
    assert story.stops() == ["rollout_rolled_back", "alias_moved", "deployment_stopped"]
    assert story.wanted.targets == []


def test_stopping_twice_changes_nothing() -> None:
    story = serving_one()
    story.stops()
    stopped = story.state
    assert story.stops() == []
    assert story.state is stopped


def test_what_never_was_cannot_be_stopped() -> None:
    story = Story()
    story.trains("run-1", deploy=False)
    with pytest.raises(UnknownDeployment):
        story.stops()


def test_no_version_comes_back_by_itself() -> None:
    story = canary_of_two()
    story.trains("run-3", against=1)
    story.stops()
    assert "rollout_started" not in story.trains("run-4")
    assert "rollout_started" not in story.wait(600)
    assert story.deployment.stopped


def test_a_rollout_brings_it_back_without_canary_steps_and_the_way_back_is_the_one_before() -> None:
    story = serving_two()
    story.stops()
    story.wait(30)
    assert story.starts(2) == ["rollout_started", "alias_moved"]
    assert story.weights == {2: 0}
    assert not story.deployment.stopped
    story.reports(2)
    assert story.weights == {2: 100}
    assert story.state.aliases == {"champion": 2, "previous": 1}


def test_a_version_that_still_drains_can_be_started_again() -> None:
    story = serving_one()
    story.stops()
    story.starts(1)
    assert story.wait(30) == []
    story.reports(1)
    assert (story.weights, story.deployment.before) == ({1: 100}, ())


def test_there_is_no_way_back_while_nothing_serves() -> None:
    story = serving_two()
    story.stops()
    with pytest.raises(NothingToRollBackTo):
        story.rolls_back()


def test_a_state_that_was_never_stopped_is_told_as_before_there_was_stopping() -> None:
    story = serving_two()
    assert "stopped" not in json.loads(canonical_json(story.state))["deployments"][MODEL]
    story.stops()
    again = ModelState.model_validate_json(canonical_json(story.state))
    assert again == story.state
    assert again.deployment(MODEL).stopped
