"""A version that replicas are to load: what it waits for is shown, and it does not wait for ever."""

import pytest

from services.contracts.artifact import Device
from services.contracts.events import ReplicaReported, ReplicaVersion
from services.contracts.placement import Placement
from services.registry.domain import SpecChanges, awaited
from services.registry.domain.state import RolloutState
from tests.unit.registry.scenario import MODEL, Scenario, serving_one


def report(replica: str, generation: int, device: Device = Device.CPU, **version: object) -> ReplicaReported:
    parts = [ReplicaVersion.model_validate({"deployment": MODEL, "model": MODEL, **version})] if version else []
    return ReplicaReported(
        replica=replica,
        address="h:1",
        sequence=1,
        generations={MODEL: generation},
        versions=parts,
        device=device,
        capacity=8,
    )


def loading_two() -> Scenario:
    """Version 1 serves, and version 2 is to be loaded."""
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    assert scenario.rollout.state is RolloutState.LOADING
    return scenario


def test_a_version_that_is_not_ready_in_time_is_given_up_and_what_served_serves_on() -> None:
    scenario = loading_two()
    assert scenario.wait(1799) == []
    assert scenario.wait(1) == ["rollout_rolled_back"]
    assert scenario.rollout.reason == "version 2 was not ready on enough replicas within 1800 s"
    assert scenario.weights[1] == 100
    assert scenario.wait(7200) == []


def test_a_version_that_is_ready_in_time_is_not() -> None:
    scenario = loading_two()
    scenario.wait(1799)
    assert scenario.reports(2) == ["rollout_loaded"]
    assert "rollout_rolled_back" not in scenario.wait(590)


def test_a_first_version_waits_on_since_nothing_is_better_than_it() -> None:
    scenario = Scenario()
    scenario.trains("run-1")
    assert scenario.timers == []
    assert scenario.wait(100_000) == []
    assert scenario.reports(1) == ["rollout_promoted"]


def test_a_rollout_that_followed_has_its_own_time() -> None:
    scenario = loading_two()
    scenario.wait(1700)
    scenario.rolls_back()
    scenario.starts(2)
    assert scenario.wait(1700) == []
    assert scenario.rollout.state is RolloutState.LOADING
    assert scenario.wait(100) == ["rollout_rolled_back"]


def test_one_that_waits_for_a_person_is_not_loading_yet() -> None:
    scenario = serving_one()
    scenario.changes(SpecChanges.model_validate({"approval": "manual"}))
    scenario.trains("run-2", against=1)
    assert scenario.rollout.state is RolloutState.PENDING
    assert scenario.wait(100_000) == []
    scenario.approves()
    assert scenario.wait(1800) == ["rollout_rolled_back"]


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ([], "no replica reports"),
        ([report("a", 9)], "1 more of 1 replicas must have it ready: a has not begun"),
        ([report("a", 9, version=1, state="ready")], "1 more of 1 replicas must have it ready: a has not begun"),
        ([report("a", 9, version=2, state="loading")], "1 more of 1 replicas must have it ready: a loading"),
        (
            [
                report("a", 9, version=2, state="failed", reason="its graph is empty"),
                report("b", 9, version=2, state="ready"),
            ],
            "1 more of 2 replicas must have it ready: a failed (its graph is empty); b ready",
        ),
        ([report("a", 9, version=2, state="ready")], ""),
    ],
)
def test_what_it_waits_for_is_named(reports: list[ReplicaReported], words: str) -> None:
    scenario = loading_two()
    scenario.changes(SpecChanges(quorum=len(reports)))
    assert awaited(scenario.deployment, reports, qualified_name=MODEL) == words


def test_a_device_that_no_replica_has_is_named() -> None:
    scenario = loading_two()
    scenario.changes(SpecChanges(device=Device.CUDA))
    assert scenario.deployment.require_spec().placement == Placement(device=Device.CUDA)
    words = awaited(scenario.deployment, [report("a", 9)], qualified_name=MODEL)
    assert words == "no replica with the device cuda reports"


def test_a_replica_that_names_no_device_computes_on_a_cpu() -> None:
    scenario = loading_two()
    scenario.changes(SpecChanges(device=Device.CPU))
    silent = report("a", 9, version=2, state="loading").model_copy(update={"device": None})
    words = awaited(scenario.deployment, [silent], qualified_name=MODEL)
    assert words == "1 more of 1 replicas must have it ready: a loading"


def test_a_rollout_that_does_not_load_waits_for_nothing() -> None:
    scenario = loading_two()
    scenario.reports(2)
    assert awaited(scenario.deployment, [], qualified_name=MODEL) == ""
    assert awaited(serving_one().deployment, [], qualified_name=MODEL) == ""
