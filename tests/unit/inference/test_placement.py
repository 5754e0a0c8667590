"""How replicas share the deployments: who loads what, and what happens as they come and go."""

from datetime import timedelta

import pytest

from services.contracts.artifact import Device
from services.contracts.events import ReplicaReported, Role
from services.contracts.placement import Placement
from services.inference.domain.loaded_models import BringUp, LoadedModels
from services.inference.domain.peers import Peers
from services.inference.errors import VersionNotServed
from services.inference.handlers.deployments import on_replica_reported, watch_peers
from services.kit.messaging.envelope import Envelope
from tests.unit.inference.builders import deployment, key, peer_report, target
from tests.unit.inference.fakes import ReplicaUnderTest
from tests.unit.inference.test_handlers import apply, send

ONE = Placement(replicas=1)


def rival(*, wins: bool) -> str:
    """The name of another replica that is, or is not, assigned a deployment of one replica in place of `r`."""
    names = (f"other-{number}" for number in range(100))
    devices = {"r": Device.CPU}
    return next(name for name in names if (name in ONE.assigned("topics", {**devices, name: Device.CPU})) == wins)


async def hears(replica: ReplicaUnderTest, report: ReplicaReported, *, seconds_ago: float = 0.0) -> None:
    at = replica.clock.now() - timedelta(seconds=seconds_ago)
    await on_replica_reported(Envelope(f"r{report.sequence}", report, "inference", at), replica.ports)
    await replica.settle()


@pytest.mark.parametrize("wins", [True, False], ids=["assigned elsewhere", "assigned here"])
async def test_a_replica_loads_only_what_it_is_assigned(wins: bool) -> None:
    replica = ReplicaUnderTest()
    await hears(replica, peer_report(rival(wins=wins)))
    await apply(replica, deployment(1, target(1), placement=ONE))
    assert replica.engines.engines == (set() if wins else {key(1)})


async def test_a_deployment_for_another_device_is_not_loaded() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1), placement=Placement(device=Device.CUDA)))
    assert replica.engines.engines == set()
    with pytest.raises(VersionNotServed):
        await send(replica)


async def test_a_version_moves_to_a_replica_that_joins_only_once_that_one_has_it_ready() -> None:
    replica, other = ReplicaUnderTest(), rival(wins=True)
    await apply(replica, deployment(1, target(1), placement=ONE))
    await hears(replica, peer_report(other, sequence=1))
    assert replica.reporter.reports[-1] == [(1, "ready")], "the other one has to load it first"
    await hears(replica, peer_report(other, 1, sequence=2))
    assert replica.reporter.reports[-1] == [], "nothing more is routed here"
    assert (await send(replica)).version == 1, "what was on its way is answered"
    await replica.pass_time(10)
    assert replica.engines.engines == set()


@pytest.mark.parametrize("leaves", [True, False], ids=["says that it leaves", "falls silent"])
async def test_a_replica_takes_over_from_one_that_is_gone(leaves: bool) -> None:
    replica, other = ReplicaUnderTest(), rival(wins=True)
    await hears(replica, peer_report(other, 1))
    await apply(replica, deployment(1, target(1), placement=ONE))
    assert replica.engines.engines == set()
    if leaves:
        await hears(replica, peer_report(other, sequence=2, leaving=True))
    else:
        replica.load_tasks.start(key(99), watch_peers(replica.ports, 3.0))
        await replica.pass_time(12)
        assert replica.engines.engines == set()
        await replica.pass_time(9)
    assert replica.engines.engines == {key(1)}
    await replica.load_tasks.stop(key(99))


async def test_a_version_that_was_handed_over_is_taken_back_before_it_is_unloaded() -> None:
    replica, other = ReplicaUnderTest(), rival(wins=True)
    await apply(replica, deployment(1, target(1), placement=ONE))
    await hears(replica, peer_report(other, 1))
    await hears(replica, peer_report(other, sequence=2, leaving=True))
    assert replica.reporter.reports[-1] == [(1, "ready")]
    assert replica.artifacts.fetched == [key(1).digest]


async def test_an_old_report_of_a_replica_that_is_long_gone_counts_for_nothing() -> None:
    replica = ReplicaUnderTest()
    await hears(replica, peer_report(rival(wins=True), 1), seconds_ago=3600)
    await apply(replica, deployment(1, target(1), placement=ONE))
    assert replica.engines.engines == {key(1)}


async def test_a_heartbeat_without_changes_and_a_report_of_its_own_cause_nothing() -> None:
    replica, other = ReplicaUnderTest(), rival(wins=False)
    await apply(replica, deployment(1, target(1), placement=ONE))
    await hears(replica, peer_report(other, 1, sequence=1))
    reports_before = len(replica.reporter.reports)
    await hears(replica, peer_report(other, 1, sequence=2))
    await hears(replica, peer_report("r", 1, sequence=9))
    assert len(replica.reporter.reports) == reports_before
    assert dict(replica.models.peers.devices) == {other: Device.CPU}


def test_an_older_report_changes_nothing() -> None:
    peers = Peers()
    assert peers.reported(peer_report("a", 1, sequence=5), 0.0)
    assert not peers.reported(peer_report("a", sequence=4, leaving=True), 1.0)
    assert peers.have_ready(frozenset({"a"}), ("topics", "topics", 1))
    assert not peers.have_ready(frozenset({"a", "b"}), ("topics", "topics", 1))


async def test_during_a_move_each_model_answers_for_its_own_version() -> None:
    replica = ReplicaUnderTest()
    moving = target(1).model_copy(update={"model": "essays", "weight": 0, "role": Role.CANARY})
    moving = moving.model_copy(update={"artifact": target(7).artifact})
    await apply(replica, deployment(1, target(1), moving))
    assert (await send(replica)).model == "topics"
    assert replica.models.route("topics", 1, model="essays").desired.model == "essays"
    await apply(replica, deployment(2, target(1).model_copy(update={"model": "essays", "artifact": target(7).artifact}),
                           target(1, weight=0).model_copy(update={"role": Role.DRAINING}), model="essays"))  # fmt: skip
    assert (await send(replica)).model == "essays"
    with pytest.raises(VersionNotServed):
        replica.models.route("topics", 1, model="nothing")


async def test_a_deleted_deployment_is_unloaded_and_forgotten() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    await apply(replica, deployment(2, deleted=True))
    await replica.pass_time(10)
    assert replica.engines.engines == set()
    assert replica.desired_state.deployments == []
    models = LoadedModels()
    assert not models.apply(deployment(3, deleted=True))
    models.apply(deployment(4, target(1)))
    assert [type(action) for action in models.plan()] == [BringUp]
