"""Which replicas load a deployment: the same answer everywhere, and little movement."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.artifact import Device
from services.contracts.placement import Placement

REPLICAS = st.dictionaries(st.text(min_size=1, max_size=8), st.sampled_from(Device), max_size=12)
PLACEMENTS = st.builds(
    Placement, replicas=st.integers(min_value=0, max_value=6), device=st.sampled_from([None, *Device])
)


@given(PLACEMENTS, REPLICAS)
def test_as_many_are_assigned_as_desired_of_those_that_fit(placement: Placement, devices: dict[str, Device]) -> None:
    fitting = {name for name, device in devices.items() if placement.device in (None, device)}
    assigned = placement.assigned("topics", devices)
    assert assigned <= fitting
    assert len(assigned) == min(placement.replicas or len(fitting), len(fitting))


@given(PLACEMENTS, REPLICAS, st.randoms())
def test_the_order_in_which_replicas_are_seen_decides_nothing(
    placement: Placement, devices: dict[str, Device], random: Random
) -> None:
    shuffled = list(devices.items())
    random.shuffle(shuffled)
    assert placement.assigned("topics", devices) == placement.assigned("topics", dict(shuffled))


@given(PLACEMENTS, REPLICAS, st.text(min_size=1, max_size=8), st.sampled_from(Device))
def test_a_replica_that_joins_takes_over_from_at_most_one_and_moves_nothing_else(
    placement: Placement, devices: dict[str, Device], newcomer: str, device: Device
) -> None:
    devices.pop(newcomer, None)
    before = placement.assigned("topics", devices)
    after = placement.assigned("topics", {**devices, newcomer: device})
    assert after - before <= {newcomer}
    assert len(before - after) <= 1


def test_deployments_spread_over_the_replicas() -> None:
    devices = {f"inference-{number}": Device.CPU for number in range(4)}
    one = Placement(replicas=1)
    used = {replica for number in range(40) for replica in one.assigned(f"deployment-{number}", devices)}
    assert used == set(devices)


def test_without_a_quorum_more_than_half_must_be_ready() -> None:
    assert [Placement().required_ready(assigned) for assigned in (0, 1, 2, 3, 4)] == [1, 1, 2, 2, 3]
    assert Placement(replicas=4).required_ready(1) == 3
    assert Placement(replicas=4, quorum=1).required_ready(4) == 1
