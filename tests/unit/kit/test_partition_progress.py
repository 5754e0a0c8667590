"""How far the concurrent consumer may commit: up to the first event that was not handled, and no further."""

import random

import pytest

from services.kit.messaging.concurrent_consumer import PartitionProgress


def progress(*offsets: int) -> PartitionProgress:
    made = PartitionProgress()
    made.fetched.extend(offsets)
    return made


def test_nothing_is_committed_past_a_gap() -> None:
    partition, positions = progress(5, 6, 7, 8), list[int | None]()
    for offset in (6, 8, 5, 7):
        partition.mark_handled(offset)
        positions.append(partition.position)
    assert positions == [None, None, 7, 9]
    assert not partition.fetched
    assert not partition.handled


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_everything_before_the_position_was_handled(seed: int) -> None:
    """Offsets of a compacted or transactional topic have holes of their own, which are no gaps."""
    chance = random.Random(seed)
    offsets = sorted(chance.sample(range(1000), 50))
    partition, handled = progress(*offsets), set[int]()
    for offset in chance.sample(offsets, len(offsets)):
        partition.mark_handled(offset)
        handled.add(offset)
        missing = [other for other in offsets if other not in handled]
        done = [other for other in offsets if not missing or other < missing[0]]
        assert partition.position == (done[-1] + 1 if done else None)
