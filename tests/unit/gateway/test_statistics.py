"""What is counted of each served version."""

from datetime import UTC, datetime

import pytest

from services.contracts.errors import BadField, ErrorBody, Kind, Relayed
from services.contracts.events import Role
from services.contracts.tasks.stream import Result
from services.gateway.domain.statistics import Statistics
from services.gateway.handlers import answer
from services.gateway.ports import ReplicaRequest
from tests.unit.gateway.fakes import GatewayFleet, answered, command, deployment, report, target

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ARTIFACT = ("default", "news", 1)


def canaried() -> GatewayFleet:
    """Version 2 fails always; version 1 has the rest of the traffic."""
    fleet = GatewayFleet()
    desired = deployment(target(1, weight=0), target(2, Role.CANARY, 100))
    fleet.routes.deployment_changed("default", desired, {})
    fleet.routes.replica_reported(report("r1", 1, 2), at=0)

    def behave(replica: str, request: ReplicaRequest) -> Result:
        if request.version == 2:
            raise Relayed(Kind.INTERNAL, ErrorBody(code="broken", message="no"))
        return answered(request)

    fleet.replicas.behaviour = behave
    return fleet


def test_times_and_texts_add_up() -> None:
    counted = Statistics()
    counted.answered(ARTIFACT, texts=3, waited_seconds=0.5, computed_seconds=0.25, at=NOON)
    counted.answered(ARTIFACT, texts=1, waited_seconds=0.0, computed_seconds=0.25, at=NOON)
    counted.failed(ARTIFACT, seconds=2.0)
    one = counted.of(ARTIFACT)
    assert (one.texts, one.answered.count, one.failed.count, one.last) == (4, 2, 1, NOON)
    assert (one.waited.ns, one.computed.ns, one.answered.ns, one.failed.ns) == (
        500_000_000,
        500_000_000,
        1_000_000_000,
        2_000_000_000,
    )


def test_what_was_never_requested_counts_nothing_and_takes_no_memory() -> None:
    counted = Statistics(limit=1)
    counted.failed(ARTIFACT, seconds=1.0)
    assert counted.of(("default", "other", 1)).answered.count == 0
    assert counted.of(ARTIFACT).failed.count == 1


def test_beyond_the_limit_those_unused_for_longest_are_forgotten() -> None:
    counted = Statistics(limit=2)
    for version in (1, 2, 1, 3):
        counted.failed(("default", "news", version), seconds=0.0)
    assert [counted.of(("default", "news", version)).failed.count for version in (1, 2, 3)] == [2, 0, 1]


async def test_a_failing_canary_is_counted_as_failed_and_the_primary_as_having_answered() -> None:
    fleet = canaried()
    await answer(command(["a", "b"]), fleet.ports)
    failed, answered_ = (fleet.statistics.of(("default", "news", version)) for version in (2, 1))
    assert (failed.failed.count, failed.answered.count) == (1, 0)
    assert (answered_.failed.count, answered_.answered.count, answered_.texts) == (0, 1, 2)
    assert answered_.last == fleet.clock.now()


async def test_what_is_refused_before_a_version_is_chosen_is_counted_of_none() -> None:
    fleet = canaried()
    with pytest.raises(BadField):
        await answer(command([" "]), fleet.ports)
    assert all(fleet.statistics.of(("default", "news", version)).failed.count == 0 for version in (1, 2))


@pytest.mark.parametrize("kind", [Kind.INVALID, Kind.TOO_LARGE, Kind.TIMED_OUT, Kind.OVERLOADED])
async def test_what_is_no_fault_of_the_version_is_not_counted_against_it(kind: Kind) -> None:
    fleet = canaried()

    def behave(replica: str, request: ReplicaRequest) -> Result:
        raise Relayed(kind, ErrorBody(code="no", message="no"))

    fleet.replicas.behaviour = behave
    with pytest.raises(Relayed):
        await answer(command(), fleet.ports)
    assert fleet.statistics.of(("default", "news", 2)).failed.count == 0
