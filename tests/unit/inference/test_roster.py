"""What is wanted against what is held, and which version answers."""

from itertools import pairwise

import pytest

from services.contracts.artifact import Device, Precision
from services.contracts.events import Role
from services.inference.domain.roster import Abandon, BringUp, Forget, Reinstate, Retire, Roster
from services.inference.domain.versions import NEXT, Held, State, VersionKey, Wish, move, wanted_by
from services.inference.errors import IllegalMove, UnknownDeployment, VersionNotServed
from tests.unit.inference.wishes import key, target, wish

UP = [State.FETCHING, State.CHECKING, State.LOADING, State.WARMING, State.READY]
CANARY, DRAINING = Role.CANARY, Role.DRAINING


def walk(roster: Roster, version: VersionKey, *states: State) -> None:
    for state in states:
        roster.move(version, state)


def roster_with(wanted: Wish, ready: tuple[int, ...] = ()) -> Roster:
    roster = Roster()
    roster.adopt(wanted)
    for item in wanted_by(wanted):
        if item.key.version in ready:
            roster.begin(item)
            walk(roster, item.key, *UP)
    return roster


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("to", list(State))
def test_a_version_moves_only_as_the_table_says(state: State, to: State) -> None:
    held = Held(wanted_by(wish(1, target(1)))[0], state)
    if to in NEXT[state]:
        assert move(held, to).state is to
    else:
        with pytest.raises(IllegalMove):
            move(held, to)


def test_the_way_up_has_every_check_in_order() -> None:
    assert all(after in NEXT[before] for before, after in pairwise([State.DESIRED, *UP]))
    assert [state for state in NEXT if State.READY in NEXT[state]] == [State.WARMING, State.DRAINING]


def test_an_older_or_repeated_generation_changes_nothing() -> None:
    roster = Roster()
    assert [roster.adopt(wish(2, target(2))), roster.adopt(wish(1, target(1))), roster.adopt(wish(2, target(1)))] == [
        True,
        False,
        False,
    ]
    assert roster.plan() == [BringUp(wanted_by(wish(2, target(2)))[0])]


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
    roster = Roster(device)
    roster.adopt(wish(1, target(1).model_copy(update={"variants": variants})))
    (action,) = roster.plan()
    assert isinstance(action, BringUp)
    assert action.wanted.key.precision is precision
    roster.begin(action.wanted)
    report = roster.report(address="a:1", sequence=1, capacity=1, leaving=False)
    assert (report.device, report.versions[0].precision) == (device, precision)


def test_a_deployment_that_wants_nothing_any_more_lets_every_version_go() -> None:
    roster = roster_with(wish(1, target(1)), ready=(1,))
    assert roster.adopt(wish(2))
    assert roster.plan() == [Retire(key(1))]


def test_primaries_come_up_before_canaries() -> None:
    roster = roster_with(wish(1, target(2, CANARY, 10), target(1)))
    assert [action.wanted.key.version for action in roster.plan() if isinstance(action, BringUp)] == [1, 2]


def test_the_old_version_serves_on_until_the_new_one_is_wanted_alone() -> None:
    roster = roster_with(wish(1, target(1)), ready=(1,))
    roster.adopt(wish(2, target(1, weight=90), target(2, CANARY, 10)))
    assert [type(action) for action in roster.plan()] == [BringUp]
    assert roster.route("topics", 0).key == key(1)


def test_a_version_that_drains_or_is_gone_is_retired_and_never_brought_up() -> None:
    roster = roster_with(wish(1, target(1)), ready=(1,))
    roster.adopt(wish(2, target(1, DRAINING, 0), target(2)))
    assert roster.plan()[0] == Retire(key(1))
    roster.adopt(wish(3, target(2)))
    assert roster.plan()[0] == Retire(key(1))
    assert roster_with(wish(1, target(1, DRAINING, 0))).plan() == []


def test_a_rollback_reinstates_a_version_that_still_drains() -> None:
    roster = roster_with(wish(1, target(1)), ready=(1,))
    roster.adopt(wish(2, target(2)))
    roster.move(key(1), State.DRAINING)
    roster.adopt(wish(3, target(1)))
    assert roster.plan() == [Reinstate(key(1))]


def test_a_bring_up_that_nothing_wants_any_more_is_abandoned() -> None:
    roster = roster_with(wish(1, target(1)))
    roster.begin(wanted_by(wish(1, target(1)))[0])
    roster.move(key(1), State.FETCHING)
    roster.adopt(wish(2, target(2)))
    assert roster.plan()[0] == Abandon(key(1))


def test_a_refused_artifact_is_not_tried_again_but_one_that_could_not_be_fetched_is() -> None:
    roster = roster_with(wish(1, target(1)))
    roster.begin(wanted_by(wish(1, target(1)))[0])
    roster.move(key(1), State.FAILED, reason="mask_ignored: no")
    roster.adopt(wish(2, target(1)))
    assert roster.plan() == []
    roster.begin(wanted_by(wish(1, target(1)))[0])
    roster.move(key(1), State.FAILED, reason="artifact_store_down: no", retryable=True)
    assert [type(action) for action in roster.plan()] == [BringUp]
    roster.adopt(wish(3))
    assert roster.plan() == [Forget(key(1))]


def test_a_request_without_a_version_gets_the_primary_and_with_one_gets_that() -> None:
    roster = roster_with(wish(1, target(1, weight=90), target(2, CANARY, 10)), ready=(1, 2))
    assert [roster.route("topics", number).key.version for number in (0, 1, 2)] == [1, 1, 2]


def test_the_first_rollouts_only_version_answers_without_being_primary() -> None:
    assert roster_with(wish(1, target(1, CANARY, 0)), ready=(1,)).route("topics", 0).key.version == 1


def test_a_draining_version_still_answers_late_requests() -> None:
    roster = roster_with(wish(1, target(1)), ready=(1,))
    roster.adopt(wish(2, target(2)))
    roster.move(key(1), State.DRAINING)
    assert roster.route("topics", 1).key == key(1)


def test_what_is_not_served_is_told_apart_from_what_is_not_known() -> None:
    roster = roster_with(wish(1, target(1)))
    with pytest.raises(VersionNotServed):
        roster.route("topics", 1)
    with pytest.raises(UnknownDeployment):
        roster.route("elsewhere", 1)


def test_a_version_is_idle_only_after_its_last_request_ended() -> None:
    roster = roster_with(wish(1, target(1)), ready=(1,))
    roster.enter(key(1))
    roster.enter(key(1))
    roster.leave(key(1), 5.0)
    assert roster.idle_for(key(1), 9.0, since=0.0) == 0
    roster.leave(key(1), 8.0)
    assert roster.idle_for(key(1), 9.0, since=0.0) == 1.0
    assert roster.idle_for(key(1), 9.0, since=8.5) == 0.5


def test_a_report_tells_states_in_the_houses_words_and_the_newest_generations() -> None:
    roster = roster_with(wish(7, target(1, weight=90), target(2, CANARY, 10), target(3, CANARY, 0)), ready=(1,))
    for item in wanted_by(roster.deployments["topics"])[1:]:
        roster.begin(item)
    roster.move(key(2), State.FETCHING)
    roster.move(key(3), State.FAILED, reason="not_onnx: its graph is a pickle")
    report = roster.report(address="h:1", sequence=4, capacity=512, leaving=False)
    assert report.generations == {"topics": 7}
    assert [(entry.version, entry.state, entry.reason) for entry in report.versions] == [
        (1, "ready", None),
        (2, "loading", None),
        (3, "failed", "not_onnx: its graph is a pickle"),
    ]


def test_a_report_tells_whose_each_version_and_generation_is() -> None:
    roster = roster_with(wish(7, target(1)), ready=(1,))
    roster.adopt(wish(2, target(3), tenant="acme"))
    for item in wanted_by(roster.deployments["acme/topics"]):
        roster.begin(item)
    report = roster.report(address="h:1", sequence=4, capacity=512, leaving=False)
    assert report.generations == {"topics": 7, "acme/topics": 2}
    assert [(entry.tenant, entry.deployment, entry.version, entry.state) for entry in report.versions] == [
        ("acme", "topics", 3, "loading"),
        ("default", "topics", 1, "ready"),
    ]


def test_a_replica_is_ready_once_its_primaries_are_whatever_the_canary_does() -> None:
    roster = roster_with(wish(1, target(1), target(2, CANARY, 10)))
    for item in wanted_by(roster.deployments["topics"]):
        roster.begin(item)
    assert not roster.ready
    walk(roster, key(1), *UP)
    assert roster.ready


def test_the_same_version_from_other_bytes_is_another_thing_to_load() -> None:
    roster = roster_with(wish(1, target(1)), ready=(1,))
    other = target(1).model_copy(update={"artifact": target(9).artifact})
    roster.adopt(wish(2, other))
    assert [type(action) for action in roster.plan()] == [Retire, BringUp]
    roster.move(key(1), State.DRAINING)
    fresh = wanted_by(wish(2, other))[0]
    roster.begin(fresh)
    walk(roster, fresh.key, *UP)
    assert roster.route("topics", 1).key == fresh.key
