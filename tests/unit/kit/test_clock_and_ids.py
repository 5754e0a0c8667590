"""Time and identifiers as ports."""

import asyncio
from itertools import pairwise

from services.kit.core.clock import SystemClock, VirtualClock
from services.kit.core.ids import SeededIds, SystemIds
from tests.waiting import LIMIT_SECONDS


def test_system_ids_sort_in_the_order_they_were_made_and_name_their_kind() -> None:
    ids = SystemIds()
    made = [ids.new("run") for _ in range(5_000)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert made[0].startswith("run-")
    assert len(made[0]) == len("run-") + 26


def test_two_makers_of_ids_never_agree() -> None:
    one, other = SystemIds(), SystemIds()
    assert {one.new("x") for _ in range(1_000)}.isdisjoint(other.new("x") for _ in range(1_000))
    assert 0 <= one.seed() < 2**31


def test_seeded_ids_repeat_themselves_and_sort() -> None:
    one, other = SeededIds(7), SeededIds(7)
    made = [one.new("evt") for _ in range(100)]
    assert made == [other.new("evt") for _ in range(100)] == sorted(set(made))
    assert [one.seed() for _ in range(5)] == [other.seed() for _ in range(5)]
    assert SeededIds(8).seed() != SeededIds(7).seed()


async def test_a_virtual_clock_wakes_sleepers_in_the_order_they_are_due() -> None:
    clock, woken = VirtualClock(), list[tuple[str, float]]()

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper("late", 5.0)), asyncio.create_task(sleeper("often", 2.0, 2.0, 2.0))]
    await asyncio.sleep(0)
    await clock.advance(1.9)
    assert woken == []
    await clock.advance(10.0)
    assert woken == [("often", 2.0), ("often", 4.0), ("late", 5.0), ("often", 6.0)]
    assert clock.monotonic() == 11.9
    assert (clock.now() - VirtualClock().now()).total_seconds() == 11.9
    await asyncio.gather(*tasks)


async def test_nobody_waits_for_a_sleep_of_nothing_or_less() -> None:
    for clock in (VirtualClock(), SystemClock()):
        await asyncio.wait_for(clock.sleep(0), LIMIT_SECONDS)
        await asyncio.wait_for(clock.sleep(-5), LIMIT_SECONDS)
        assert clock.now().utcoffset() is not None


async def test_a_cancelled_sleeper_does_not_stop_the_clock() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(1.0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await clock.advance(2.0)
    assert clock.monotonic() == 2.0
