"""What is wanted against what is held, and which version answers."""

from itertools import pairwise

import pytest

from services.contracts.artifact import Device, Precision
from services.contracts.events import Role
from services.inference.domain.loaded_models import BringUp, CancelLoad, Drain, Forget, LoadedModels, Undrain
from services.inference.domain.versions import (
    NEXT,
    ActualVersion,
    DesiredDeployment,
    State,
    VersionKey,
    desired_versions,
    move,
)
from services.inference.errors import IllegalMove, UnknownDeployment, VersionNotServed
from tests.unit.inference.builders import deployment, key, target

UP = [State.FETCHING, State.CHECKING, State.LOADING, State.WARMING, State.READY]
CANARY, DRAINING = Role.CANARY, Role.DRAINING


def walk(models: LoadedModels, version: VersionKey, *states: State) -> None:
    for state in states:
        models.move(version, state)


def models_with(desired: DesiredDeployment, ready: tuple[int, ...] = ()) -> LoadedModels:
    models = LoadedModels()
    models.apply(desired)
    for item in desired_versions(desired):
        if item.key.version in ready:
            models.begin(item)
            walk(models, item.key, *UP)
    return models


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("to", list(State))
def test_a_version_moves_only_as_the_table_says(state: State, to: State) -> None:
    actual = ActualVersion(desired_versions(deployment(1, target(1)))[0], state)
    if to in NEXT[state]:
        assert move(actual, to).state is to
    else:
        with pytest.raises(IllegalMove):
            move(actual, to)


def test_the_way_up_has_every_check_in_order() -> None:
    assert all(after in NEXT[before] for before, after in pairwise([State.DESIRED, *UP]))
    assert [state for state in NEXT if State.READY in NEXT[state]] == [State.WARMING, State.DRAINING]


def test_an_older_or_repeated_generation_changes_nothing() -> None:
    models = LoadedModels()
    assert [
        models.apply(deployment(2, target(2))),
        models.apply(deployment(1, target(1))),
        models.apply(deployment(2, target(1))),
    ] == [
        True,
        False,
        False,
    ]
    assert models.plan() == [BringUp(desired_versions(deployment(2, target(2)))[0])]


EVERY = [Precision.FP32, Precision.FP16, Precision.INT8]


@pytest.mark.parametrize(
    ("device", "variants", "precision"),
    [
        (Device.CPU, EVERY, Precision.INT8),
        (Device.CUDA, EVERY, Precision.FP16),
        (Device.CUDA, [Precision.FP32, Precision.INT8], Precision.FP32),
        (Device.CPU, [Precision.FP32, Precision.FP16], Precision.FP32),
        (Device.CUDA, [], Precision.FP32),
    ],
    ids=["all on a CPU", "all on a card", "no fp16 on a card", "no int8 on a CPU", "an older event on a card"],
)
def test_a_replica_brings_up_the_variant_for_its_device_and_reports_it(
    device: Device, variants: list[Precision], precision: Precision
) -> None:
    models = LoadedModels(device)
    models.apply(deployment(1, target(1).model_copy(update={"variants": variants})))
    (action,) = models.plan()
    assert isinstance(action, BringUp)
    assert action.desired.key.precision is precision
    models.begin(action.desired)
    report = models.report(address="a:1", sequence=1, capacity=1, leaving=False)
    assert (report.device, report.versions[0].precision) == (device, precision)


def test_a_deployment_that_wants_nothing_any_more_lets_every_version_go() -> None:
    models = models_with(deployment(1, target(1)), ready=(1,))
    assert models.apply(deployment(2))
    assert models.plan() == [Drain(key(1))]


def test_primaries_come_up_before_canaries() -> None:
    models = models_with(deployment(1, target(2, CANARY, 10), target(1)))
    assert [action.desired.key.version for action in models.plan() if isinstance(action, BringUp)] == [1, 2]


def test_the_old_version_serves_on_until_the_new_one_is_desired_alone() -> None:
    models = models_with(deployment(1, target(1)), ready=(1,))
    models.apply(deployment(2, target(1, weight=90), target(2, CANARY, 10)))
    assert [type(action) for action in models.plan()] == [BringUp]
    assert models.route("topics", 0).key == key(1)


def test_a_version_that_drains_or_is_gone_is_retired_and_never_brought_up() -> None:
    models = models_with(deployment(1, target(1)), ready=(1,))
    models.apply(deployment(2, target(1, DRAINING, 0), target(2)))
    assert models.plan()[0] == Drain(key(1))
    models.apply(deployment(3, target(2)))
    assert models.plan()[0] == Drain(key(1))
    assert models_with(deployment(1, target(1, DRAINING, 0))).plan() == []


def test_a_rollback_reinstates_a_version_that_still_drains() -> None:
    models = models_with(deployment(1, target(1)), ready=(1,))
    models.apply(deployment(2, target(2)))
    models.move(key(1), State.DRAINING)
    models.apply(deployment(3, target(1)))
    assert models.plan() == [Undrain(key(1))]


def test_a_bring_up_that_nothing_wants_any_more_is_abandoned() -> None:
    models = models_with(deployment(1, target(1)))
    models.begin(desired_versions(deployment(1, target(1)))[0])
    models.move(key(1), State.FETCHING)
    models.apply(deployment(2, target(2)))
    assert models.plan()[0] == CancelLoad(key(1))


def test_a_refused_artifact_is_not_tried_again_but_one_that_could_not_be_fetched_is() -> None:
    models = models_with(deployment(1, target(1)))
    models.begin(desired_versions(deployment(1, target(1)))[0])
    models.move(key(1), State.FAILED, reason="mask_ignored: no")
    models.apply(deployment(2, target(1)))
    assert models.plan() == []
    models.begin(desired_versions(deployment(1, target(1)))[0])
    models.move(key(1), State.FAILED, reason="artifact_store_down: no", retryable=True)
    assert [type(action) for action in models.plan()] == [BringUp]
    models.apply(deployment(3))
    assert models.plan() == [Forget(key(1))]


def test_a_request_without_a_version_gets_the_primary_and_with_one_gets_that() -> None:
    models = models_with(deployment(1, target(1, weight=90), target(2, CANARY, 10)), ready=(1, 2))
    assert [models.route("topics", number).key.version for number in (0, 1, 2)] == [1, 1, 2]


def test_the_first_rollouts_only_version_answers_without_being_primary() -> None:
    assert models_with(deployment(1, target(1, CANARY, 0)), ready=(1,)).route("topics", 0).key.version == 1


def test_a_draining_version_still_answers_late_requests() -> None:
    models = models_with(deployment(1, target(1)), ready=(1,))
    models.apply(deployment(2, target(2)))
    models.move(key(1), State.DRAINING)
    assert models.route("topics", 1).key == key(1)


def test_what_is_not_served_differs_from_what_is_not_known() -> None:
    models = models_with(deployment(1, target(1)))
    with pytest.raises(VersionNotServed):
        models.route("topics", 1)
    with pytest.raises(UnknownDeployment):
        models.route("elsewhere", 1)


def test_a_version_is_idle_only_after_its_last_request_ended() -> None:
    models = models_with(deployment(1, target(1)), ready=(1,))
    models.enter(key(1))
    models.enter(key(1))
    models.exit(key(1), 5.0)
    assert models.idle_for(key(1), 9.0, since=0.0) == 0
    models.exit(key(1), 8.0)
    assert models.idle_for(key(1), 9.0, since=0.0) == 1.0
    assert models.idle_for(key(1), 9.0, since=8.5) == 0.5


def test_a_report_tells_states_in_the_houses_words_and_the_newest_generations() -> None:
    models = models_with(deployment(7, target(1, weight=90), target(2, CANARY, 10), target(3, CANARY, 0)), ready=(1,))
    for item in desired_versions(models.deployments["topics"])[1:]:
        models.begin(item)
    models.move(key(2), State.FETCHING)
    models.move(key(3), State.FAILED, reason="not_onnx: its graph is a pickle")
    report = models.report(address="h:1", sequence=4, capacity=512, leaving=False)
    assert report.generations == {"topics": 7}
    assert [(entry.version, entry.state, entry.reason) for entry in report.versions] == [
        (1, "ready", None),
        (2, "loading", None),
        (3, "failed", "not_onnx: its graph is a pickle"),
    ]


def test_a_report_tells_whose_each_version_and_generation_is() -> None:
    models = models_with(deployment(7, target(1)), ready=(1,))
    models.apply(deployment(2, target(3), tenant="acme"))
    for item in desired_versions(models.deployments["acme/topics"]):
        models.begin(item)
    report = models.report(address="h:1", sequence=4, capacity=512, leaving=False)
    assert report.generations == {"topics": 7, "acme/topics": 2}
    assert [(entry.tenant, entry.deployment, entry.version, entry.state) for entry in report.versions] == [
        ("acme", "topics", 3, "loading"),
        ("default", "topics", 1, "ready"),
    ]


def test_a_replica_is_ready_once_its_primaries_are_whatever_the_canary_does() -> None:
    models = models_with(deployment(1, target(1), target(2, CANARY, 10)))
    for item in desired_versions(models.deployments["topics"]):
        models.begin(item)
    assert not models.ready
    walk(models, key(1), *UP)
    assert models.ready


def test_the_same_version_from_other_bytes_is_another_thing_to_load() -> None:
    models = models_with(deployment(1, target(1)), ready=(1,))
    other = target(1).model_copy(update={"artifact": target(9).artifact})
    models.apply(deployment(2, other))
    assert [type(action) for action in models.plan()] == [Drain, BringUp]
    models.move(key(1), State.DRAINING)
    fresh = desired_versions(deployment(2, other))[0]
    models.begin(fresh)
    walk(models, fresh.key, *UP)
    assert models.route("topics", 1).key == fresh.key
