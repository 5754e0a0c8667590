"""The routing table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.events import Role, Target
from services.gateway.domain.routing import RoutingTable, sticky_ticket
from services.gateway.errors import NothingServed, UnknownDeployment
from tests.unit.gateway.fakes import deployment, report, target

HERE = "default"


def idle(_: str) -> int:
    return 0


def table() -> RoutingTable:
    return RoutingTable(stale_after_seconds=15.0)


def test_the_latest_generation_counts_whatever_the_order_of_arrival() -> None:
    routes = table()
    assert routes.deployment_changed(HERE, deployment(target(2), generation=3), {})
    assert not routes.deployment_changed(HERE, deployment(target(1), generation=2), {})
    assert not routes.deployment_changed(HERE, deployment(target(1), generation=3), {})
    assert routes.plan(HERE, "news", ticket=0.0).versions == (2,)


def test_another_tenants_deployment_is_unknown() -> None:
    routes = table()
    routes.deployment_changed("other", deployment(target(1)), {})
    with pytest.raises(UnknownDeployment):
        routes.plan(HERE, "news", ticket=0.0)


def test_a_version_that_is_ready_for_one_tenant_is_so_for_no_other() -> None:
    routes = table()
    response = report("r-1", 1)
    theirs = [part.model_copy(update={"tenant": "acme"}) for part in response.versions]
    routes.replica_reported(response.model_copy(update={"versions": theirs}), at=0.0)
    assert routes.pick("news", "news", 1, at=0.0, load=idle) is None
    picked = routes.pick("acme/news", "news", 1, at=0.0, load=idle)
    assert picked is not None
    assert picked.id == "r-1"


def test_the_primary_follows_the_canary_in_the_plan_and_nothing_falls_back_to_a_canary() -> None:
    routes = table()
    routes.deployment_changed(HERE, deployment(target(1, weight=90), target(2, Role.CANARY, 10)), {})
    assert routes.plan(HERE, "news", ticket=0.05).versions == (2, 1)
    assert routes.plan(HERE, "news", ticket=0.5).versions == (1,)


def test_a_draining_version_gets_no_new_traffic() -> None:
    routes = table()
    routes.deployment_changed(HERE, deployment(target(3, Role.DRAINING, 100), target(2, weight=0)), {})
    assert routes.plan(HERE, "news", ticket=0.5).versions == (2,)


@pytest.mark.parametrize("left", [[], [target(1, Role.DRAINING, 0)]])
@pytest.mark.parametrize("version", [0, 1])
def test_a_stopped_deployment_says_so_instead_of_waiting(left: list[Target], version: int) -> None:
    routes = table()
    routes.deployment_changed(HERE, deployment(*left), {})
    assert routes.knows(HERE, "news")
    with pytest.raises(NothingServed):
        routes.plan(HERE, "news", ticket=0.0, version=version)


def test_a_deployment_whose_first_version_loads_is_waited_for() -> None:
    routes = table()
    routes.deployment_changed(HERE, deployment(target(1, Role.CANARY, 0)), {})
    assert routes.plan(HERE, "news", ticket=0.0).versions == ()


@given(st.integers(1, 99), st.integers(0, 2**32))
def test_the_weights_hold_over_evenly_spread_tickets(weight: int, seed: int) -> None:
    routes = table()
    routes.deployment_changed(HERE, deployment(target(1, weight=100 - weight), target(2, Role.CANARY, weight)), {})
    tickets = [((seed + index) % 1000) / 1000 for index in range(1000)]
    canary = sum(routes.plan(HERE, "news", ticket=ticket).versions[0] == 2 for ticket in tickets)
    assert abs(canary - weight * 10) <= 1


@given(st.text(min_size=1, max_size=50), st.integers(1, 98))
def test_a_sticky_key_stays_with_the_canary_as_its_weight_grows(key: str, weight: int) -> None:
    ticket = sticky_ticket("news", key)
    assert ticket == sticky_ticket("news", key)
    routes = table()
    chosen = []
    for generation, share in enumerate((weight, weight + 1, 100), start=1):
        targets = (target(1, weight=100 - share), target(2, Role.CANARY, share))
        routes.deployment_changed(HERE, deployment(*targets, generation=generation), {})
        chosen.append(routes.plan(HERE, "news", ticket=ticket).versions[0])
    assert chosen == sorted(chosen)
    assert chosen[-1] == 2


def test_sticky_tickets_are_even_over_keys() -> None:
    tickets = [sticky_ticket("news", f"key-{number}") for number in range(4000)]
    assert all(0 <= ticket < 1 for ticket in tickets)
    assert 0.47 < sum(ticket < 0.5 for ticket in tickets) / len(tickets) < 0.53


def test_only_a_replica_that_has_the_version_ready_is_picked() -> None:
    routes = table()
    routes.replica_reported(report("r1", 1, loading=(2,)), at=0)
    assert routes.pick("news", "news", 1, at=0, load=idle) is not None
    assert routes.pick("news", "news", 2, at=0, load=idle) is None
    routes.replica_reported(report("r1", 1, 2, sequence=2), at=1)
    assert routes.pick("news", "news", 2, at=1, load=idle) is not None


def test_a_stale_sequence_changes_nothing_unless_the_replica_was_long_silent() -> None:
    routes = table()
    routes.replica_reported(report("r1", 1, sequence=5), at=0)
    assert not routes.replica_reported(report("r1", 2, sequence=4), at=1)
    assert not routes.replica_reported(report("r1", 2, sequence=5), at=1)
    assert routes.pick("news", "news", 2, at=1, load=idle) is None
    assert routes.replica_reported(report("r1", 2, sequence=1), at=16)


def test_a_leaving_replica_is_never_picked() -> None:
    routes = table()
    routes.replica_reported(report("r1", 1), at=0)
    routes.replica_reported(report("r1", 1, sequence=2, leaving=True), at=0)
    assert routes.pick("news", "news", 1, at=0, load=idle) is None


def test_a_new_replica_drives_the_old_one_from_its_address() -> None:
    routes = table()
    routes.replica_reported(report("r1", 1, address="host:1"), at=0)
    routes.replica_reported(report("r2", 2, address="host:1"), at=0)
    assert [replica.id for replica in routes.replicas()] == ["r2"]
    assert routes.pick("news", "news", 1, at=0, load=idle) is None


def test_the_least_loaded_reachable_replica_is_picked() -> None:
    routes = table()
    for name in ("r1", "r2", "r3", "r4"):
        routes.replica_reported(report(name, 1), at=0)
    loads = {"r1": 5, "r2": 2, "r3": None, "r4": 1}
    picked = routes.pick("news", "news", 1, at=0, load=loads.get, without={"r4"})
    assert picked is not None
    assert picked.id == "r2"


def test_equally_loaded_replicas_take_turns() -> None:
    routes = table()
    for name in ("r1", "r2"):
        routes.replica_reported(report(name, 1), at=0)
    picked = [routes.pick("news", "news", 1, at=0, load=idle) for _ in range(4)]
    assert sorted(replica.id for replica in picked if replica) == ["r1", "r1", "r2", "r2"]


def test_a_silent_replica_is_picked_last_but_still_picked() -> None:
    routes = table()
    routes.replica_reported(report("old", 1), at=0)
    routes.replica_reported(report("new", 1), at=20)
    loads = {"old": 0, "new": 7}
    fresh = routes.pick("news", "news", 1, at=20, load=loads.get)
    assert fresh is not None
    assert fresh.id == "new"
    lone = routes.pick("news", "news", 1, at=20, load=loads.get, without={"new"})
    assert lone is not None
    assert lone.id == "old"


def test_a_forgotten_replica_is_gone() -> None:
    routes = table()
    routes.replica_reported(report("r1", 1), at=0)
    routes.forget("r1")
    assert routes.replicas() == ()
    assert routes.pick("news", "news", 1, at=0, load=idle) is None


def test_the_mirror_is_the_other_version_for_the_share_that_is_set() -> None:
    routes = table()
    targets = (target(1), target(2, Role.CANARY, 0), target(3, Role.DRAINING, 0))
    routes.deployment_changed(HERE, deployment(*targets, mirror=0.5), {})
    assert routes.mirror_of(HERE, "news", 1, ticket=0.49) == 2
    assert routes.mirror_of(HERE, "news", 2, ticket=0.49) == 1
    assert routes.mirror_of(HERE, "news", 1, ticket=0.5) is None


def test_the_first_request_of_a_version_gets_the_trace_that_brought_it_once() -> None:
    routes = table()
    routes.deployment_changed(HERE, deployment(target(1)), {"traceparent": "first"})
    routes.deployment_changed(
        HERE, deployment(target(1), target(2, Role.CANARY, 10), generation=2), {"traceparent": "second"}
    )
    routes.deployment_changed(
        HERE, deployment(target(1), target(2, Role.CANARY, 50), generation=3), {"traceparent": "third"}
    )
    assert routes.claim_first(HERE, "news", 1) == {"traceparent": "first"}
    assert routes.claim_first(HERE, "news", 2) == {"traceparent": "second"}
    assert routes.claim_first(HERE, "news", 2) is None
    routes.release_first(HERE, "news", 2)
    assert routes.claim_first(HERE, "news", 2) == {"traceparent": "second"}
    assert routes.claim_first(HERE, "news", 9) is None


def test_a_deployment_that_moves_to_another_model_is_answered_by_the_one_that_serves() -> None:
    routes = table()
    ours, theirs = target(1), target(1).model_copy(update={"model": "essays"})
    loading = theirs.model_copy(update={"role": Role.CANARY, "weight": 0})
    routes.deployment_changed(HERE, deployment(ours, loading), {})
    part = report("r-1", 1).versions[0].model_copy(update={"model": "essays"})
    routes.replica_reported(report("r-1").model_copy(update={"versions": [part]}), at=0)
    plan = routes.plan(HERE, "news", ticket=0.0)
    assert (plan.model, plan.versions) == ("news", (1,))
    assert routes.pick(plan.key, plan.model, 1, at=0, load=idle) is None, "version 1 of essays is another thing"
    draining = ours.model_copy(update={"role": Role.DRAINING, "weight": 0, "model": "news"})
    moved = deployment(theirs, draining, generation=2).model_copy(update={"model": "essays"})
    routes.deployment_changed(HERE, moved, {})
    plan = routes.plan(HERE, "news", ticket=0.0)
    assert routes.pick(plan.key, plan.model, 1, at=0, load=idle) is not None
    assert routes.served(HERE)[0].versions == (1,)


def test_a_deployment_that_was_deleted_is_not_known_any_more() -> None:
    routes = table()
    routes.deployment_changed(HERE, deployment(target(1)), {})
    assert routes.deployment_changed(HERE, deployment(generation=2).model_copy(update={"deleted": True}), {})
    assert not routes.knows(HERE, "news")
