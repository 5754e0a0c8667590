"""Limits that several gateways share, in Redis: one round trip a request, on Redis's own time.

A request waits for Redis at most 50 ms. The first that waits in vain opens the breaker: from then on memory answers, at
once, until Redis does again. Nothing in Redis is the truth of anything: flushed, the limits begin anew.

A place (a request under way) lapses by itself after 30 seconds unless its gateway renews it, so that a gateway which
dies gives its places back. Places left and tokens spent go along with the key's next request, or by themselves a moment
later.
"""

import asyncio
import itertools
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.gateway.domain.limits import (
    NO_LIMITS,
    TOKEN_WINDOW_SECONDS,
    LimitRules,
    Limits,
    Permit,
    Quota,
)
from services.gateway.outbound.limits import free, too_many_at_once, too_many_requests, too_many_tokens
from services.gateway.ports import Limiter, current_permit
from services.gateway.telemetry import LIMIT_SECONDS, LIMITS_LOCAL
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.identity.auth import Principal

MAX_CONNECTIONS: Final = 64
MAX_LEFT: Final = 500
"""Places told in one call; with more than so many unsettled ones of a key the oldest lapse by themselves."""
MAX_UNSETTLED: Final = 10_000
MICRO: Final = 1_000_000
KEY: Final = "millrace:limits:{%s}:"

ADMIT: Final = """
-- KEYS: the key's meters (a hash: when each is empty again), its places (a sorted set: when each lapses)
-- ARGV: a request's interval, the burst, places at most, a token's interval, the window of tokens (all times in
--       microseconds), the new place ('' for none), a place's life, tokens spent, and the places that were left
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst, concurrent = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local token, window, place, life = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local spent = tonumber(ARGV[8])
local kept = redis.call('HMGET', KEYS[1], 'requests', 'tokens')
local requests, tokens = tonumber(kept[1]) or 0, tonumber(kept[2]) or 0
if #ARGV > 8 then redis.call('ZREM', KEYS[2], unpack(ARGV, 9)) end
if spent > 0 and token > 0 then tokens = math.max(tokens, now) + spent * token end
local verdict, wait = 'in', 0
if place ~= '' then
  if concurrent > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
    if redis.call('ZCARD', KEYS[2]) >= concurrent then verdict = 'concurrent' end
  end
  if verdict == 'in' and token > 0 and tokens - now - window > 1 then
    verdict, wait = 'tokens', tokens - now - window
  end
  if verdict == 'in' and interval > 0 then
    local moved = math.max(requests, now) + interval
    if moved - now - burst * interval > 1 then
      verdict, wait = 'requests', moved - now - burst * interval
    else
      requests = moved
    end
  end
  if verdict == 'in' and concurrent > 0 then
    redis.call('ZADD', KEYS[2], string.format('%.0f', now + life), place)
    redis.call('PEXPIRE', KEYS[2], math.ceil(life / 1000))
  end
end
local last = math.max(requests, tokens)
if last > now then
  redis.call('HSET', KEYS[1], 'requests', string.format('%.1f', requests), 'tokens', string.format('%.1f', tokens))
  redis.call('PEXPIRE', KEYS[1], math.ceil((last - now) / 1000) + 1)
end
return {verdict, string.format('%.0f', wait), string.format('%.0f', math.max(0, requests - now))}
"""

RENEW: Final = """
-- KEYS: the key's places; ARGV: a place's life in microseconds, and the places that are still held
local clock = redis.call('TIME')
local lapses = string.format('%.0f', clock[1] * 1000000 + clock[2] + tonumber(ARGV[1]))
for number = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', lapses, ARGV[number]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(tonumber(ARGV[1]) / 1000))
"""


@dataclass(frozen=True)
class Times:
    """How long Redis is waited for, how often it is looked at, and how long it holds a place for a silent gateway."""

    stall_seconds: float = 0.05
    probe_seconds: float = 0.5
    permit_seconds: float = 30.0
    renew_seconds: float = 10.0


USUAL_TIMES: Final = Times()


@dataclass(slots=True)
class _Unsettled:
    """What Redis has not been told of one key yet."""

    limits: Limits
    permit_ids: list[str] = field(default_factory=list)
    tokens: int = 0


class _SharedPermit(Permit):
    __slots__ = ("_limits", "_of", "_owner", "permit_id", "since")

    def __init__(self, owner: "RedisLimits", key_id: str, limits: Limits, permit_id: str, since: float) -> None:
        super().__init__()
        self._owner = owner
        self._of = key_id
        self._limits = limits
        self.permit_id = permit_id
        self.since = since

    def release(self) -> None:
        self._owner.left(self, self._of, self._limits)


class RedisLimits(Limiter):
    """Run it beside the servers; it probes a Redis that is away, settles what was left and renews what is held."""

    def __init__(
        self, url: str, rules: LimitRules, local: Limiter, clock: Clock, *, owner: str, times: Times = USUAL_TIMES
    ) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            protocol=2,
            max_connections=MAX_CONNECTIONS,
            timeout=times.stall_seconds,
            socket_timeout=times.probe_seconds,
            socket_connect_timeout=times.probe_seconds,
            retry=Retry(NoBackoff(), 1),  # a connection that died while it was idle is made anew
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._admit = self._redis.register_script(ADMIT)
        self._renew = self._redis.register_script(RENEW)
        self._rules = rules
        self._local = local
        self._clock = clock
        self._owner = owner
        self._times = times
        self._numbers = itertools.count()
        self._away = False
        self._held: dict[str, dict[str, _SharedPermit]] = {}
        self._unsettled: dict[str, _Unsettled] = {}
        self._wake = asyncio.Event()

    async def admit(self, principal: Principal) -> Permit:
        limits = self._rules.of(principal)
        if limits is NO_LIMITS:
            return free()
        if self._away:
            return await self._local.admit(principal)
        permit_id = f"{self._owner}.{next(self._numbers)}"
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._times.stall_seconds):
                reply = await self._query(principal.key_id, limits, permit_id)
        except (TimeoutError, RedisError, OSError) as error:
            self._leave_redis(error)
            return await self._local.admit(principal)
        LIMIT_SECONDS.record(self._clock.monotonic() - began)
        return self._judge(principal, limits, permit_id, reply)

    def left(self, permit: _SharedPermit, key_id: str, limits: Limits) -> None:
        """Called by a pass when its request has ended."""
        held = self._held.get(key_id)
        if held is not None:
            held.pop(permit.permit_id, None)
            if not held:
                del self._held[key_id]
        if not limits.concurrent and not (permit.tokens and limits.tokens_per_minute):
            return
        debt = self._unsettled.get(key_id)
        if debt is None:
            if len(self._unsettled) >= MAX_UNSETTLED:
                return
            debt = self._unsettled[key_id] = _Unsettled(limits)
        debt.tokens += permit.tokens
        if limits.concurrent:
            debt.permit_ids.append(permit.permit_id)
            del debt.permit_ids[:-MAX_LEFT]
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled: the client for Redis loses a cancellation now and then, so it is asked for too."""
        task, renewed = asyncio.current_task(), self._clock.monotonic()
        while task is None or not task.cancelling():
            try:
                async with asyncio.timeout(self._times.probe_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                if self._away:
                    await self._probe()
                await self._settle()
                if self._clock.monotonic() - renewed >= self._times.renew_seconds:
                    renewed = self._clock.monotonic()
                    await self._renew_held(renewed)
            except (TimeoutError, RedisError, OSError) as error:
                self._leave_redis(error)
                await self._clock.sleep(self._times.probe_seconds)

    async def close(self) -> None:
        await self._redis.connection_pool.disconnect(inuse_connections=True)

    async def _query(self, key_id: str, limits: Limits, permit_id: str) -> list[bytes]:
        """One call of the script; what the key left since goes along, and is kept where the call fails."""
        unsettled = self._unsettled.pop(key_id, None) or _Unsettled(limits)
        name = KEY % key_id
        arguments: tuple[float | str, ...] = (
            limits.request_seconds * MICRO,
            limits.burst,
            limits.concurrent,
            limits.token_seconds * MICRO,
            TOKEN_WINDOW_SECONDS * MICRO,
            permit_id,
            self._times.permit_seconds * MICRO,
            unsettled.tokens,
            *unsettled.permit_ids,
        )
        try:
            return cast("list[bytes]", await self._admit(keys=[f"{name}meters", f"{name}places"], args=arguments))
        except BaseException:
            self._keep(key_id, unsettled)
            raise

    def _keep(self, key_id: str, unsettled: _Unsettled) -> None:
        """Tokens may be charged twice where only the answer was lost; places may be given back twice."""
        if unsettled.tokens or unsettled.permit_ids:
            now = self._unsettled.setdefault(key_id, _Unsettled(unsettled.limits))
            now.tokens += unsettled.tokens
            now.permit_ids[:0] = unsettled.permit_ids
            del now.permit_ids[:-MAX_LEFT]

    def _judge(self, principal: Principal, limits: Limits, permit_id: str, reply: list[bytes]) -> Permit:
        verdict, wait, ahead = reply[0].decode(), int(reply[1]) / MICRO, int(reply[2]) / MICRO
        if verdict == "concurrent":
            raise too_many_at_once(principal, limits)
        if verdict == "tokens":
            raise too_many_tokens(principal, limits, wait)
        if verdict == "requests":
            raise too_many_requests(principal, limits, wait)
        permit = _SharedPermit(self, principal.key_id, limits, permit_id, self._clock.monotonic())
        interval = limits.request_seconds
        if interval:
            left = max(0, int(limits.burst - ahead / interval))
            permit.quota = Quota(limits.burst, limits.burst * interval, left, ahead)
        if limits.concurrent:
            self._held.setdefault(principal.key_id, {})[permit_id] = permit
        current_permit.set(permit)
        return permit

    # --- beside the requests

    def _leave_redis(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            LIMITS_LOCAL.set(1)
            logger.warning("Redis does not answer (%s): this gateway limits keys by itself", type(error).__name__)
            self._wake.set()

    async def _probe(self) -> None:
        async with asyncio.timeout(self._times.probe_seconds):
            await cast("Awaitable[Any]", self._redis.ping())
        self._away = False
        LIMITS_LOCAL.set(0)
        logger.info("Redis answers again: keys are limited by all gateways together")

    async def _settle(self) -> None:
        for key_id in list(self._unsettled):
            if (unsettled := self._unsettled.get(key_id)) is not None:
                async with asyncio.timeout(self._times.probe_seconds):
                    await self._query(key_id, unsettled.limits, "")

    async def _renew_held(self, now: float) -> None:
        for key_id, held in list(self._held.items()):
            long = [permit_id for permit_id, permit in held.items() if now - permit.since >= self._times.renew_seconds]
            if long:
                name = KEY % key_id
                async with asyncio.timeout(self._times.probe_seconds):
                    await self._renew(
                        keys=[f"{name}places"], args=(self._times.permit_seconds * MICRO, *long[:MAX_LEFT])
                    )
