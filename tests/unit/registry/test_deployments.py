"""Deployments as things of their own: created, changed, moved to another model, approved, deleted."""

import pytest

from services.contracts.artifact import Device
from services.contracts.events import ReplicaReported, ReplicaVersion
from services.contracts.placement import Placement
from services.registry.domain import Approval, DeploymentSpec, SpecChanges, VersionRef, replicas_missing
from services.registry.domain.policy import PolicyChanges
from services.registry.errors import (
    DeploymentExists,
    IllegalMove,
    InvalidPolicy,
    InvalidSpec,
    NotReadyYet,
    NotStopped,
    RolloutUnderWay,
    StaleComparison,
    UnknownDeployment,
    UnknownModel,
)
from tests.unit.registry.scenario import MODEL, OTHER, POLICY, Scenario, canary_of_two, serving_one

STAGING = "staging"


def two_models() -> Scenario:
    """Version 1 of MODEL serves; OTHER has a version that nothing serves."""
    scenario = serving_one()
    scenario.trains("other-1", model=OTHER, deploy=False)
    return scenario


def moved() -> Scenario:
    """The deployment of MODEL's name serves version 1 of OTHER, and version 1 of MODEL drains."""
    scenario = two_models()
    scenario.changes(SpecChanges(model=OTHER))
    scenario.starts(1)
    scenario.reports(1, model=OTHER)
    return scenario


def test_a_new_deployment_serves_nothing_until_a_rollout_is_started() -> None:
    scenario = serving_one()
    assert scenario.creates(STAGING) == ["deployment_created"]
    assert (scenario.published[-1].deployment, scenario.published[-1].targets) == (STAGING, [])
    assert scenario.starts(1, STAGING) == ["rollout_started"]
    assert scenario.reports(1, deployment=STAGING) == ["rollout_promoted"]
    assert scenario.deployments[STAGING].version == VersionRef(model=MODEL, version=1)


def test_two_deployments_of_one_model_move_apart_and_each_has_its_own_aliases() -> None:
    scenario = serving_one()
    scenario.creates(STAGING, compare=False)
    scenario.trains("run-2", against=1)
    scenario.reports(2, deployment=STAGING)
    assert scenario.deployments[STAGING].aliases == {"champion": VersionRef(model=MODEL, version=2)}
    assert scenario.deployment.aliases["champion"].version == 1
    assert scenario.deployment.aliases["challenger"].version == 2
    scenario.rolls_back()
    assert scenario.deployments[STAGING].version == VersionRef(model=MODEL, version=2), "the other one is untouched"


def test_a_version_counts_as_compared_only_where_its_opponent_serves() -> None:
    scenario = canary_of_two()
    scenario.promotes()
    scenario.creates(STAGING)
    scenario.starts(1, STAGING)
    scenario.reports(1, deployment=STAGING)
    scenario.trains("run-3", against=2)
    assert scenario.deployment.active_rollout is not None
    assert scenario.deployments[STAGING].active_rollout is None, "version 3 was compared with 2, but 1 serves there"
    with pytest.raises(StaleComparison):
        scenario.starts(3, STAGING)
    scenario.changes(SpecChanges(compare=False), STAGING)
    assert scenario.starts(3, STAGING) == ["rollout_started"]


def test_a_deployment_that_is_not_automatic_waits_for_a_person_to_start() -> None:
    scenario = serving_one()
    scenario.changes(SpecChanges(automatic=False))
    assert "rollout_started" not in scenario.trains("run-2", against=1)
    assert scenario.starts(2) == ["rollout_started"]


def test_a_rollout_that_needs_approval_loads_nothing_until_a_person_approves_it() -> None:
    scenario = serving_one()
    scenario.changes(SpecChanges(approval=Approval.MANUAL))
    scenario.trains("run-2", against=1)
    assert (scenario.rollout.state, scenario.weights, scenario.desired.rollout) == ("pending", {1: 100}, None)
    assert scenario.reports(2) == [], "a replica that has it for another deployment says nothing about this one"
    for forbidden in (scenario.promotes, scenario.pauses):
        with pytest.raises((NotReadyYet, IllegalMove)):
            forbidden()
    assert scenario.approves() == ["rollout_approved"]
    assert scenario.roles == {1: "primary", 2: "canary"}
    with pytest.raises(IllegalMove):
        scenario.approves()
    assert scenario.reports(2) == ["rollout_loaded"]


def test_a_rollout_that_a_person_starts_is_approved_by_that() -> None:
    scenario = serving_one()
    scenario.changes(SpecChanges(approval=Approval.MANUAL, automatic=False))
    scenario.trains("run-2", against=1)
    scenario.starts(2)
    assert scenario.rollout.state == "loading"


def test_a_rollout_that_is_not_approved_can_be_rolled_back_without_a_trace_of_it_being_served() -> None:
    scenario = serving_one()
    scenario.changes(SpecChanges(approval=Approval.MANUAL))
    scenario.trains("run-2", against=1)
    assert scenario.rolls_back() == ["rollout_rolled_back"]
    assert scenario.weights == {1: 100}


def test_a_move_to_another_model_serves_on_until_a_version_of_it_is_ready_and_then_moves_at_once() -> None:
    scenario = two_models()
    scenario.changes(SpecChanges(model=OTHER))
    assert (scenario.desired.model, scenario.weights) == (MODEL, {1: 100})
    scenario.starts(1)
    assert [(t.model, t.weight) for t in scenario.desired.targets] == [(MODEL, 100), (OTHER, 0)]
    assert scenario.reports(1) == [], "version 1 of the present model is not version 1 of the other"
    assert scenario.reports(1, model=OTHER) == ["rollout_promoted"]
    assert [(t.model, t.role) for t in scenario.desired.targets] == [(OTHER, "primary"), (MODEL, "draining")]
    assert scenario.desired.model == OTHER


@pytest.mark.parametrize("drained", [False, True], ids=["while the old one drains", "once it is unloaded"])
def test_a_rollback_after_a_move_returns_to_the_old_model_and_follows_it_again(drained: bool) -> None:
    scenario = moved()
    if drained:
        assert scenario.wait(POLICY.drain_seconds) == ["target_dropped"]
    scenario.rolls_back()
    if drained:
        scenario.reports(1)
    assert scenario.deployment.version == VersionRef(model=MODEL, version=1)
    assert scenario.deployment.require_spec().model == MODEL
    scenario.trains("run-2", against=1)
    assert scenario.rollout.version == VersionRef(model=MODEL, version=2)


def test_new_versions_of_the_model_that_was_left_are_not_rolled_out_any_more() -> None:
    scenario = moved()
    assert "rollout_started" not in scenario.trains("run-2", against=None)
    assert "rollout_started" in scenario.trains("other-2", against=1, model=OTHER)


def test_a_deployment_does_not_move_during_a_rollout_or_to_a_model_that_is_not_there() -> None:
    scenario = canary_of_two()
    with pytest.raises(UnknownModel):
        scenario.changes(SpecChanges(model="nothing"))
    scenario.trains("other-1", model=OTHER, deploy=False)
    with pytest.raises(RolloutUnderWay):
        scenario.changes(SpecChanges(model=OTHER))


def test_a_change_that_changes_nothing_is_no_fact() -> None:
    scenario = serving_one()
    assert scenario.changes(SpecChanges(model=MODEL, automatic=True)) == []


def test_changes_leave_alone_what_they_do_not_name() -> None:
    spec = DeploymentSpec(model=MODEL, placement=Placement(replicas=3, device=Device.CUDA, quorum=2))
    changed = spec.changed(SpecChanges(replicas=2, policy=PolicyChanges(mirror=1.0)), POLICY)
    assert changed.placement == Placement(replicas=2, device=Device.CUDA, quorum=2)
    assert changed.policy == POLICY.changed(PolicyChanges(mirror=1.0))
    assert changed.changed(SpecChanges(any_device=True), POLICY).placement.device is None


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        (SpecChanges(replicas=-1), InvalidSpec, "replicas"),
        (SpecChanges(replicas=1001), InvalidSpec, "replicas"),
        (SpecChanges(replicas=2, quorum=3), InvalidSpec, "quorum"),
        (SpecChanges(policy=PolicyChanges(weights=(50, 10))), InvalidPolicy, "policy"),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused_by_field(
    changes: SpecChanges, error: type[InvalidSpec | InvalidPolicy], field: str
) -> None:
    with pytest.raises(error) as refused:
        DeploymentSpec(model=MODEL).changed(changes, POLICY)
    assert refused.value.field == field


def test_the_policy_of_a_deployment_rules_its_rollouts_and_one_rollout_may_differ() -> None:
    scenario = serving_one()
    scenario.changes(SpecChanges(policy=PolicyChanges(weights=(20,))))
    scenario.trains("run-2", against=1)
    assert scenario.rollout.policy == POLICY.changed(PolicyChanges(weights=(20,)))


def test_only_a_stopped_deployment_is_deleted_and_it_stays_away() -> None:
    scenario = serving_one()
    with pytest.raises(NotStopped):
        scenario.deletes()
    scenario.stops()
    assert scenario.deletes() == ["deployment_deleted"]
    assert (scenario.desired.deleted, scenario.desired.targets, scenario.timers) == (True, [], [])
    for gone in (
        scenario.deletes, scenario.stops, scenario.rolls_back, scenario.approves, scenario.pauses, scenario.promotes
    ):  # fmt: skip
        with pytest.raises(UnknownDeployment):
            gone()
    assert "deployment_created" not in scenario.trains("run-2"), "a person took it away: no version brings it back"


def test_a_name_that_is_used_again_goes_on_counting_and_remembers_nothing_else() -> None:
    scenario = serving_one()
    scenario.stops()
    scenario.deletes()
    generation = scenario.deployment.generation
    with pytest.raises(UnknownDeployment):
        scenario.changes(SpecChanges(automatic=False))
    scenario.creates()
    assert scenario.deployment.generation == generation + 1
    assert scenario.deployment.before == ()
    with pytest.raises(DeploymentExists):
        scenario.creates()
    scenario.starts(1)
    assert scenario.rollout.id == f"{MODEL}-r2"


def report(replica: str, state: str = "ready", *, device: Device | None = None, seen: int = 99) -> ReplicaReported:
    part = ReplicaVersion.model_validate({"deployment": MODEL, "model": MODEL, "version": 2, "state": state})
    return ReplicaReported(
        replica=replica,
        address="127.0.0.1:1",
        sequence=1,
        generations={MODEL: seen},
        versions=[part],
        device=device,
        capacity=8,
    )


@pytest.mark.parametrize(
    ("placement", "reports", "missing"),
    [
        (Placement(), [report("a")], 0),
        (Placement(), [report("a"), report("b", "loading")], 1),
        (Placement(), [report("a"), report("b"), report("c", "loading")], 0),
        (Placement(quorum=3), [report("a"), report("b"), report("c", "loading")], 1),
        (Placement(replicas=5), [report("a"), report("b")], 1),
        (Placement(device=Device.CUDA), [report("a"), report("b", device=Device.CPU)], 1),
        (Placement(device=Device.CUDA), [report("a", device=Device.CUDA), report("b")], 0),
        (Placement(), [report("a", seen=0)], 1),
        (Placement(), [], 1),
    ],
    ids=[
        "one and all", "one of two", "two of three", "a quorum of three", "more than half of those desired",
        "on the wrong device", "on the right device", "an older attempt", "nobody lives",
    ],
)  # fmt: skip
def test_traffic_waits_for_the_quorum_of_the_placement(
    placement: Placement, reports: list[ReplicaReported], missing: int
) -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    spec = scenario.deployment.require_spec().model_copy(update={"placement": placement})
    deployment = scenario.deployment.model_copy(update={"spec": spec})
    assert replicas_missing(deployment, reports, qualified_name=MODEL) == missing


def test_a_replica_that_is_not_assigned_does_not_count_towards_the_quorum() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1)
    placement = Placement(replicas=1)
    spec = scenario.deployment.require_spec().model_copy(update={"placement": placement})
    deployment = scenario.deployment.model_copy(update={"spec": spec})
    (assigned,) = placement.assigned(MODEL, {"a": Device.CPU, "b": Device.CPU})
    other = "b" if assigned == "a" else "a"
    reports = [report(assigned, "loading"), report(other)]
    assert replicas_missing(deployment, reports, qualified_name=MODEL) == 1
