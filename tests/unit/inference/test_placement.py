"""How replicas share the deployments: who loads what, and what happens as they come and go."""

from datetime import timedelta

import pytest

from services.contracts.artifact import Device
from services.contracts.events import ReplicaReported, Role
from services.contracts.placement import Placement
from services.inference.domain.peers import Peers
from services.inference.domain.roster import BringUp, Roster
from services.inference.errors import VersionNotServed
from services.inference.handlers import on_replica_reported, watch_peers
from services.kit.messaging.envelope import Envelope
from tests.unit.inference.fakes import Room
from tests.unit.inference.test_handlers import adopt, ask
from tests.unit.inference.wishes import key, peer_report, target, wish

ONE = Placement(replicas=1)


def rival(*, wins: bool) -> str:
    """The name of another replica that is, or is not, assigned a deployment of one replica in place of `r`."""
    names = (f"other-{number}" for number in range(100))
    devices = {"r": Device.CPU}
    return next(name for name in names if (name in ONE.assigned("topics", {**devices, name: Device.CPU})) == wins)


async def hears(room: Room, report: ReplicaReported, *, seconds_ago: float = 0.0) -> None:
    at = room.clock.now() - timedelta(seconds=seconds_ago)
    await on_replica_reported(Envelope(f"r{report.sequence}", report, "inference", at), room.ports)
    await room.settle()


@pytest.mark.parametrize("wins", [True, False], ids=["assigned elsewhere", "assigned here"])
async def test_a_replica_loads_only_what_it_is_assigned(wins: bool) -> None:
    room = Room()
    await hears(room, peer_report(rival(wins=wins)))
    await adopt(room, wish(1, target(1), placement=ONE))
    assert room.engines.engines == (set() if wins else {key(1)})


async def test_a_deployment_for_another_device_is_not_loaded() -> None:
    room = Room()
    await adopt(room, wish(1, target(1), placement=Placement(device=Device.CUDA)))
    assert room.engines.engines == set()
    with pytest.raises(VersionNotServed):
        await ask(room)


async def test_a_version_moves_to_a_replica_that_joins_only_once_that_one_has_it_ready() -> None:
    room, other = Room(), rival(wins=True)
    await adopt(room, wish(1, target(1), placement=ONE))
    await hears(room, peer_report(other, sequence=1))
    assert room.reporter.told[-1] == [(1, "ready")], "the other one has to load it first"
    await hears(room, peer_report(other, 1, sequence=2))
    assert room.reporter.told[-1] == [], "nothing more is routed here"
    assert (await ask(room)).version == 1, "what was on its way is answered"
    await room.pass_time(10)
    assert room.engines.engines == set()


@pytest.mark.parametrize("leaves", [True, False], ids=["says that it leaves", "falls silent"])
async def test_a_replica_takes_over_from_one_that_is_gone(leaves: bool) -> None:
    room, other = Room(), rival(wins=True)
    await hears(room, peer_report(other, 1))
    await adopt(room, wish(1, target(1), placement=ONE))
    assert room.engines.engines == set()
    if leaves:
        await hears(room, peer_report(other, sequence=2, leaving=True))
    else:
        room.crew.start(key(99), watch_peers(room.ports, 3.0))
        await room.pass_time(12)
        assert room.engines.engines == set()
        await room.pass_time(9)
    assert room.engines.engines == {key(1)}
    await room.crew.stop(key(99))


async def test_a_version_that_was_handed_over_is_taken_back_before_it_is_unloaded() -> None:
    room, other = Room(), rival(wins=True)
    await adopt(room, wish(1, target(1), placement=ONE))
    await hears(room, peer_report(other, 1))
    await hears(room, peer_report(other, sequence=2, leaving=True))
    assert room.reporter.told[-1] == [(1, "ready")]
    assert room.artifacts.fetched == [key(1).digest]


async def test_an_old_report_of_a_replica_that_is_long_gone_counts_for_nothing() -> None:
    room = Room()
    await hears(room, peer_report(rival(wins=True), 1), seconds_ago=3600)
    await adopt(room, wish(1, target(1), placement=ONE))
    assert room.engines.engines == {key(1)}


async def test_a_heartbeat_without_news_and_a_report_of_its_own_cause_nothing() -> None:
    room, other = Room(), rival(wins=False)
    await adopt(room, wish(1, target(1), placement=ONE))
    await hears(room, peer_report(other, 1, sequence=1))
    said = len(room.reporter.told)
    await hears(room, peer_report(other, 1, sequence=2))
    await hears(room, peer_report("r", 1, sequence=9))
    assert len(room.reporter.told) == said
    assert dict(room.roster.peers.devices) == {other: Device.CPU}


def test_an_older_report_changes_nothing() -> None:
    peers = Peers()
    assert peers.reported(peer_report("a", 1, sequence=5), 0.0)
    assert not peers.reported(peer_report("a", sequence=4, leaving=True), 1.0)
    assert peers.have_ready(frozenset({"a"}), ("topics", "topics", 1))
    assert not peers.have_ready(frozenset({"a", "b"}), ("topics", "topics", 1))


async def test_during_a_move_each_model_answers_for_its_own_version() -> None:
    room = Room()
    moving = target(1).model_copy(update={"model": "essays", "weight": 0, "role": Role.CANARY})
    moving = moving.model_copy(update={"artifact": target(7).artifact})
    await adopt(room, wish(1, target(1), moving))
    assert (await ask(room)).model == "topics"
    assert room.roster.route("topics", 1, model="essays").wanted.model == "essays"
    await adopt(room, wish(2, target(1).model_copy(update={"model": "essays", "artifact": target(7).artifact}),
                           target(1, weight=0).model_copy(update={"role": Role.DRAINING}), model="essays"))  # fmt: skip
    assert (await ask(room)).model == "essays"
    with pytest.raises(VersionNotServed):
        room.roster.route("topics", 1, model="nothing")


async def test_a_deleted_deployment_is_unloaded_and_forgotten() -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    await adopt(room, wish(2, deleted=True))
    await room.pass_time(10)
    assert room.engines.engines == set()
    assert room.remembered.wishes == []
    roster = Roster()
    assert not roster.adopt(wish(3, deleted=True))
    roster.adopt(wish(4, target(1)))
    assert [type(action) for action in roster.plan()] == [BringUp]
