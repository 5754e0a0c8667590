"""How a deployment is stopped, stays stopped, and comes back when it is asked to."""

import pytest

from services.registry.domain.desired import DRAIN
from services.registry.errors import NothingToRollBackTo, UnknownDeployment
from tests.unit.registry.scenario import Scenario, canary_of_two, serving_one, serving_two


def test_a_stopped_deployment_serves_nothing_and_what_was_loaded_drains() -> None:
    scenario = serving_one()
    before = scenario.deployment.generation
    assert scenario.stops() == ["deployment_stopped"]
    assert (scenario.weights, scenario.roles) == ({1: 0}, {1: "draining"})
    assert scenario.deployment.generation == before + 1
    assert scenario.desired.rollout is None
    assert {spec.kind for spec in scenario.timers} == {DRAIN}
    assert scenario.wait(30) == ["target_dropped"]
    assert scenario.desired.targets == []


def test_nobody_is_champion_then_and_who_served_last_is_previous() -> None:
    scenario = serving_two()
    scenario.stops()
    assert scenario.aliases == {"previous": 2}


def test_a_canary_is_rolled_back_before_the_deployment_stops() -> None:
    scenario = canary_of_two()
    change = len(scenario.published)
    assert scenario.stops()[:3] == ["rollout_rolled_back", "deployment_stopped"]
    assert scenario.roles == {1: "draining", 2: "draining"}
    assert scenario.desired.mirror == 0
    assert len(scenario.published) == change + 1, "nobody is told of a moment in which the champion serves alone"
    scenario.wait(30)
    assert scenario.desired.targets == []


def test_a_version_that_still_loads_is_let_go_at_once() -> None:
    scenario = Scenario()
    scenario.trains("run-1")
    assert scenario.stops() == ["rollout_rolled_back", "deployment_stopped"]
    assert scenario.desired.targets == []


def test_stopping_twice_changes_nothing() -> None:
    scenario = serving_one()
    scenario.stops()
    stopped = scenario.state
    assert scenario.stops() == []
    assert scenario.state is stopped


def test_what_never_was_cannot_be_stopped() -> None:
    scenario = Scenario()
    scenario.trains("run-1", deploy=False)
    with pytest.raises(UnknownDeployment):
        scenario.stops()


def test_no_version_comes_back_by_itself() -> None:
    scenario = canary_of_two()
    scenario.trains("run-3", against=1)
    scenario.stops()
    assert "rollout_started" not in scenario.trains("run-4")
    assert "rollout_started" not in scenario.wait(600)
    assert scenario.deployment.stopped


def test_a_rollout_brings_it_back_without_canary_steps_and_the_way_back_is_the_one_before() -> None:
    scenario = serving_two()
    scenario.stops()
    scenario.wait(30)
    assert scenario.starts(2) == ["rollout_started"]
    assert scenario.weights == {2: 0}
    assert not scenario.deployment.stopped
    scenario.reports(2)
    assert scenario.weights == {2: 100}
    assert scenario.aliases == {"champion": 2, "previous": 1}


def test_a_version_that_still_drains_can_be_started_again() -> None:
    scenario = serving_one()
    scenario.stops()
    scenario.starts(1)
    assert scenario.wait(30) == []
    scenario.reports(1)
    assert (scenario.weights, scenario.deployment.before) == ({1: 100}, ())


def test_there_is_no_way_back_while_nothing_serves() -> None:
    scenario = serving_two()
    scenario.stops()
    with pytest.raises(NothingToRollBackTo):
        scenario.rolls_back()
