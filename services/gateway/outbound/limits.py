"""Limits in this process's memory: the whole truth of one gateway, and what answers while Redis is away."""

from typing import Final

from services.gateway.domain.limits import (
    NO_LIMITS,
    LimitRules,
    Limits,
    Permit,
    Quota,
    charge,
    debt,
    left_over,
    take,
)
from services.gateway.errors import ConcurrencyLimitExceeded, RateLimitExceeded, TokenLimitExceeded
from services.gateway.ports import Limiter, current_permit
from services.gateway.telemetry import LIMITED
from services.kit.core.clock import Clock
from services.kit.identity.auth import KeyLimits, Principal

MAX_METERS: Final = 10_000
CONCURRENCY_RETRY_SECONDS: Final = 1.0
FREE: Final = Permit()
"""For keys without limits; nothing is counted on it."""


class _Meters:
    """One key's."""

    __slots__ = ("key_limits", "limits", "permits", "requests_empty_at", "tokens_empty_at")

    def __init__(self, limits: Limits, key_limits: KeyLimits) -> None:
        self.limits = limits
        self.key_limits = key_limits
        self.permits = 0
        self.requests_empty_at = 0.0
        self.tokens_empty_at = 0.0


class _MemoryPermit(Permit):
    __slots__ = ("_clock", "_meters")

    def __init__(self, quota: Quota | None, meters: _Meters, clock: Clock) -> None:
        super().__init__(quota)
        self._meters = meters
        self._clock = clock

    def release(self) -> None:
        meters = self._meters
        meters.permits -= 1
        interval = meters.limits.token_seconds
        if self.tokens and interval:
            meters.tokens_empty_at = charge(meters.tokens_empty_at, self._clock.monotonic(), interval, self.tokens)


class MemoryLimits(Limiter):
    """Keeps at most 10,000 keys' meters; those that are empty and unused go first, and nothing is lost with them."""

    def __init__(self, rules: LimitRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._meters: dict[str, _Meters] = {}

    async def admit(self, principal: Principal) -> Permit:
        meters = self._meters.get(principal.key_id)
        if meters is None or meters.key_limits is not principal.limits:
            meters = self._renewed(principal, meters)
        limits = meters.limits
        if limits is NO_LIMITS:
            return free()
        now = self._clock.monotonic()
        if limits.concurrent and meters.permits >= limits.concurrent:
            raise too_many_at_once(principal, limits)
        if limits.tokens_per_minute and (wait := debt(meters.tokens_empty_at, now)):
            raise too_many_tokens(principal, limits, wait)
        quota = None
        if limits.requests_per_second:
            interval = limits.request_seconds
            moved, wait = take(meters.requests_empty_at, now, interval, limits.burst)
            if wait:
                raise too_many_requests(principal, limits, wait)
            meters.requests_empty_at = moved
            left = left_over(moved, now, interval, limits.burst)
            quota = Quota(limits.burst, limits.burst * interval, left, moved - now)
        meters.permits += 1
        permit = _MemoryPermit(quota, meters, self._clock)
        current_permit.set(permit)
        return permit

    def _renewed(self, principal: Principal, known: _Meters | None) -> _Meters:
        """The key's meters with the limits that hold now; what is on them stays."""
        limits = self._rules.of(principal)
        if known is not None:
            known.limits, known.key_limits = limits, principal.limits
            return known
        if len(self._meters) >= MAX_METERS:
            self._evict()
        meters = self._meters[principal.key_id] = _Meters(limits, principal.limits)
        return meters

    def _evict(self) -> None:
        now = self._clock.monotonic()
        for key_id, meters in list(self._meters.items()):
            if not meters.permits and max(meters.requests_empty_at, meters.tokens_empty_at) <= now:
                del self._meters[key_id]
        if len(self._meters) >= MAX_METERS:
            del self._meters[next(iter(self._meters))]


def free() -> Permit:
    current_permit.set(None)
    return FREE


def too_many_requests(principal: Principal, limits: Limits, wait: float) -> RateLimitExceeded:
    LIMITED.add(1, tenant=principal.tenant, limit="requests", role=principal.role)
    return RateLimitExceeded(
        limit=f"{limits.requests_per_second:g}",
        burst=limits.burst,
        window_seconds=limits.burst * limits.request_seconds,
        retry_after_seconds=wait,
    )


def too_many_at_once(principal: Principal, limits: Limits) -> ConcurrencyLimitExceeded:
    LIMITED.add(1, tenant=principal.tenant, limit="concurrent", role=principal.role)
    return ConcurrencyLimitExceeded(limit=limits.concurrent, retry_after_seconds=CONCURRENCY_RETRY_SECONDS)


def too_many_tokens(principal: Principal, limits: Limits, wait: float) -> TokenLimitExceeded:
    LIMITED.add(1, tenant=principal.tenant, limit="tokens", role=principal.role)
    return TokenLimitExceeded(limit=limits.tokens_per_minute, retry_after_seconds=wait)
