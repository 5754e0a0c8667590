"""One promise of limits, kept by memory and by Redis; and what only a shared one promises."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from services.contracts.access import KeyRole
from services.gateway.domain.limits import LimitRules, Limits
from services.gateway.errors import ConcurrencyLimitExceeded, RateLimitExceeded, TokenLimitExceeded
from services.gateway.outbound.limits import MAX_METERS, MemoryLimits
from services.gateway.outbound.shared_limits import RedisLimits, Times
from services.gateway.ports import Limiter, spend
from services.kit.core.clock import SystemClock, VirtualClock
from services.kit.core.ids import SystemIds
from services.kit.identity.auth import KeyLimits, Principal
from tests.fixtures.databases import RunningRedis, redis_running
from tests.waiting import LIMIT_SECONDS

SLACK_SECONDS = 0.15
"""Two cores are shared with other tests; 50 ms are promised of Redis, not of this machine."""
Make = Callable[[Limits], Limiter]


def rules(limits: Limits) -> LimitRules:
    return LimitRules(usual=limits, admin_factor=50)


def caller(name: str = "", role: KeyRole = KeyRole.CLIENT, limits: KeyLimits | None = None) -> Principal:
    """Of a key that no other test has used."""
    return Principal(name or SystemIds().new("key"), role, "default", limits or KeyLimits())


@asynccontextmanager
async def running(url: str, limits: Limits, times: Times | None = None) -> AsyncIterator[RedisLimits]:
    clock = SystemClock()
    response = rules(limits)
    made = RedisLimits(
        url, response, MemoryLimits(response, clock), clock, owner=SystemIds().new("gw"), times=times or Times()
    )
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.close()


@pytest.fixture(params=["memory", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """A limiter with these usual limits, in memory or in Redis."""
    if request.param == "memory":
        yield lambda limits: MemoryLimits(rules(limits), SystemClock())
        return
    url: str = request.getfixturevalue("redis_server")
    opened: list[Any] = []

    def build(limits: Limits) -> Limiter:
        clock, response = SystemClock(), rules(limits)
        made = RedisLimits(
            url, response, MemoryLimits(response, clock), clock, owner=SystemIds().new("gw"), times=SLOW_TIMES
        )
        opened.append((made, asyncio.create_task(made.run())))
        return made

    yield build
    for made, task in opened:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not made._away, "Redis was there all the time"
        await made.close()


SLOW_TIMES = Times(stall_seconds=5.0, probe_seconds=5.0)
"""A loaded machine must not open the breaker where a test is about Redis itself."""


async def use(limiter: Limiter, who: Principal, tokens: int = 0) -> None:
    """One request from its beginning to its end."""
    passed = await limiter.admit(who)
    spend(tokens)
    passed.release()


async def test_a_burst_is_let_in_and_the_next_request_learns_how_long_to_wait(make: Make) -> None:
    limiter, who = make(Limits(requests_per_second=1.0, burst=3)), caller()
    for left in (2, 1, 0):
        passed = await limiter.admit(who)
        assert passed.quota is not None
        assert (passed.quota.burst, passed.quota.left) == (3, left)
        assert passed.quota.window_seconds == pytest.approx(3.0)
        passed.release()
    with pytest.raises(RateLimitExceeded) as refused:
        await limiter.admit(who)
    wait = refused.value.retry_after
    assert wait is not None
    assert 0 < wait <= 1.0
    await asyncio.sleep(wait)
    await use(limiter, who)


async def test_keys_do_not_share_their_meters(make: Make) -> None:
    limiter = make(Limits(requests_per_second=0.01, burst=1, concurrent=1))
    for _ in range(5):
        await limiter.admit(caller())


async def test_no_more_are_under_way_than_the_limit_and_a_released_permit_is_free_at_once(make: Make) -> None:
    limiter, who = make(Limits(concurrent=2)), caller()
    first, _ = await limiter.admit(who), await limiter.admit(who)
    with pytest.raises(ConcurrencyLimitExceeded) as refused:
        await limiter.admit(who)
    assert refused.value.retry_after == 1.0
    first.release()
    for _ in range(50):
        await use(limiter, who)


async def test_a_refusal_for_any_reason_costs_nothing(make: Make) -> None:
    limiter, who = make(Limits(requests_per_second=0.01, burst=2, concurrent=1)), caller()
    held = await limiter.admit(who)
    for _ in range(10):
        with pytest.raises(ConcurrencyLimitExceeded):
            await limiter.admit(who)
    held.release()
    await use(limiter, who)
    with pytest.raises(RateLimitExceeded):
        await limiter.admit(who)
    with pytest.raises(RateLimitExceeded):
        await limiter.admit(who)


async def test_tokens_are_charged_after_the_answer_and_a_key_in_debt_waits_until_it_has_recovered(make: Make) -> None:
    limiter, who = make(Limits(tokens_per_minute=300)), caller()
    await use(limiter, who, tokens=150)
    await use(limiter, who, tokens=155)
    with pytest.raises(TokenLimitExceeded) as refused:
        await limiter.admit(who)
    wait = refused.value.retry_after
    assert wait is not None
    assert 0 < wait <= 1.0
    await asyncio.sleep(wait)
    await use(limiter, who)


async def test_services_are_not_limited_and_admins_much_less(make: Make) -> None:
    limiter = make(Limits(requests_per_second=0.1, burst=1, concurrent=1, tokens_per_minute=1))
    service, admin = caller(role=KeyRole.SERVICE), caller(role=KeyRole.ADMIN)
    for _ in range(100):
        assert (await limiter.admit(service)).quota is None
        spend(1_000)
    for _ in range(50):
        await limiter.admit(admin)
    with pytest.raises(ConcurrencyLimitExceeded):
        await limiter.admit(admin)


async def test_what_the_keys_entry_says_holds_for_it_alone(make: Make) -> None:
    limiter = make(Limits(requests_per_second=0.01, burst=1))
    fast = caller(limits=KeyLimits(requests_per_second=0.0))
    for _ in range(20):
        await use(limiter, fast)
    slow = caller()
    await use(limiter, slow)
    with pytest.raises(RateLimitExceeded):
        await limiter.admit(slow)


async def test_memory_keeps_a_bounded_number_of_meters_and_forgets_the_empty_ones_first() -> None:
    clock = VirtualClock()
    limiter = MemoryLimits(rules(Limits(requests_per_second=1.0, burst=1)), clock)
    busy = caller("busy")
    await limiter.admit(busy)
    for number in range(MAX_METERS + 10):
        await use(limiter, caller(f"k{number}"))
        await clock.advance(0.01)
    assert len(limiter._meters) <= MAX_METERS
    assert "busy" in limiter._meters


async def test_a_key_whose_limits_change_keeps_what_is_on_its_meters() -> None:
    limiter = MemoryLimits(rules(Limits(requests_per_second=0.01, burst=1)), VirtualClock())
    await use(limiter, caller("k"))
    with pytest.raises(RateLimitExceeded):
        await limiter.admit(caller("k", limits=KeyLimits(requests_per_second=0.02)))


# --- what only a shared one promises ------------------------------------------------------------


async def test_gateways_share_a_keys_limits(redis_server: str) -> None:
    limits, who = Limits(requests_per_second=0.01, burst=4, concurrent=3), caller()
    async with running(redis_server, limits, SLOW_TIMES) as one, running(redis_server, limits, SLOW_TIMES) as other:
        held = [await one.admit(who), await other.admit(who), await one.admit(who)]
        with pytest.raises(ConcurrencyLimitExceeded):
            await other.admit(who)
        held[0].release()
        await until(lambda: one._unsettled == {})
        await other.admit(who)
        held[1].release()
        await until(lambda: other._unsettled == {})
        with pytest.raises(RateLimitExceeded):
            await one.admit(who)


async def test_a_gateway_that_dies_gives_its_permits_back_and_one_that_lives_keeps_them(redis_server: str) -> None:
    limits, who = Limits(concurrent=2), caller()
    short = Times(stall_seconds=5.0, probe_seconds=0.1, permit_seconds=0.8, renew_seconds=0.2)
    async with running(redis_server, limits, short) as living:
        await living.admit(who)
        async with running(redis_server, limits, short) as dying:
            await dying.admit(who)
        with pytest.raises(ConcurrencyLimitExceeded):
            await living.admit(who)
        await asyncio.sleep(1.5)
        await living.admit(who)
        with pytest.raises(ConcurrencyLimitExceeded):
            await living.admit(who)


async def test_while_redis_stalls_50_ms_are_lost_once_and_memory_answers_until_it_is_back(
    own_redis: RunningRedis,
) -> None:
    limits, who = Limits(requests_per_second=0.01, burst=50, concurrent=50), caller()
    async with running(own_redis.url, limits) as limiter:
        await use(limiter, who)
        own_redis.process.send_signal(signal.SIGSTOP)
        lost = await asyncio.gather(*(timed(use(limiter, who)) for _ in range(20)))
        assert max(lost) < 0.05 + SLACK_SECONDS
        assert limiter._away
        assert sum([await timed(use(limiter, who)) for _ in range(20)]) < 0.05
        await asyncio.sleep(1.2)
        assert limiter._away, "a stopped Redis is not back"
        own_redis.process.send_signal(signal.SIGCONT)
        await until(lambda: not limiter._away)
        for _ in range(9):
            await use(limiter, who)


async def test_a_redis_that_is_away_at_the_start_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    from services.cli.launcher.ports import any_free

    port, who = any_free(), caller()
    async with running(f"redis://127.0.0.1:{port}/0", Limits(requests_per_second=0.01, burst=2)) as limiter:
        for _ in range(2):
            assert await timed(use(limiter, who)) < 0.05 + SLACK_SECONDS
        with pytest.raises(RateLimitExceeded):
            await limiter.admit(who)
        with redis_running(tmp_path, port):
            await until(lambda: not limiter._away)
            await use(limiter, who)


async def test_a_flushed_or_restarted_redis_begins_the_limits_anew(own_redis: RunningRedis, tmp_path: Path) -> None:
    who, limits = caller(), Limits(requests_per_second=0.01, burst=1, concurrent=1)
    async with running(own_redis.url, limits, SLOW_TIMES) as limiter:
        held = await limiter.admit(who)
        with pytest.raises(ConcurrencyLimitExceeded):
            await limiter.admit(who)
        await limiter._redis.flushall()
        await limiter._redis.script_flush()
        again = await limiter.admit(who)
        held.release()
        again.release()
        with pytest.raises(RateLimitExceeded):
            await limiter.admit(who)
        own_redis.process.kill()
        own_redis.process.wait()
        await use(limiter, who)  # memory's meter is an empty one
        assert limiter._away
        with redis_running(tmp_path, urlsplit(own_redis.url).port or 0):
            await until(lambda: not limiter._away)
            await use(limiter, who)
            with pytest.raises(RateLimitExceeded):
                await limiter.admit(who)


async def test_nothing_stays_in_redis_for_ever(own_redis: RunningRedis) -> None:
    async with running(own_redis.url, Limits(requests_per_second=5.0, burst=2, concurrent=2), SLOW_TIMES) as limiter:
        await limiter.admit(caller())
        names = await limiter._redis.keys("*")
        assert len(names) == 2
        for name in names:
            assert 0 < await limiter._redis.pttl(name) <= 30_001


async def timed(work: Awaitable[None]) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - waits for what others do
            await asyncio.sleep(0.01)
