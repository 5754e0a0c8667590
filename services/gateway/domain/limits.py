"""How much one key may ask: requests a second with a burst, requests under way, tokens a minute. Pure.

The first and the last are meters by the generic cell rate algorithm (GCRA, ITU-T I.371 annex A), which keeps one
number: the moment at which the meter will be empty again (the theoretical arrival time). Each request moves it on by
the interval that the rate allows, and one that would move it more than the burst's intervals ahead of the present is
refused. Tokens are known only after the answer, so they are charged then; a key that is more than a minute's worth
ahead is in debt, and refused until it is no longer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.contracts.access import KeyRole
from services.kit.identity.auth import NO_KEY_LIMITS, Principal

TOKEN_WINDOW_SECONDS: Final = 60.0
TOLERANCE_SECONDS: Final = 1e-6
"""Floating point alone refuses nobody."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for one key; 0 is no limit."""

    requests_per_second: float = 0.0
    burst: int = 0
    concurrent: int = 0
    tokens_per_minute: int = 0

    @property
    def request_seconds(self) -> float:
        """How far one request moves its meter; 0 where there is none."""
        return 1 / self.requests_per_second if self.requests_per_second else 0.0

    @property
    def token_seconds(self) -> float:
        """How far one token moves its meter; 0 where there is none."""
        return TOKEN_WINDOW_SECONDS / self.tokens_per_minute if self.tokens_per_minute else 0.0

    def times(self, factor: int) -> "Limits":
        return Limits(
            self.requests_per_second * factor,
            self.burst * factor,
            self.concurrent * factor,
            self.tokens_per_minute * factor,
        )


NO_LIMITS: Final = Limits()


@dataclass(frozen=True)
class LimitRules:
    """Which limits hold for whom: an admin's key has the usual ones many times, a service's key none."""

    usual: Limits
    admin_factor: int

    def by_role(self) -> Mapping[KeyRole, Limits]:
        admin = self.usual.times(self.admin_factor)
        usual = dict.fromkeys((KeyRole.VIEWER, KeyRole.CLIENT, KeyRole.OPERATOR), self.usual)
        return {**usual, KeyRole.ADMIN: admin, KeyRole.SERVICE: NO_LIMITS}

    def of(self, principal: Principal) -> Limits:
        """What the key's entry says comes first; a rate without a burst keeps the usual proportion of the two."""
        usual, key_limits = self.by_role()[principal.role], principal.limits
        if principal.role is KeyRole.SERVICE or key_limits == NO_KEY_LIMITS:
            return usual
        rate = usual.requests_per_second if key_limits.requests_per_second is None else key_limits.requests_per_second
        burst = key_limits.burst or 0
        if not burst and rate:
            same_rate = rate == usual.requests_per_second
            proportion = usual.burst / usual.requests_per_second if usual.requests_per_second else 1.0
            burst = usual.burst if same_rate else max(1, math.ceil(rate * proportion))
        return Limits(
            requests_per_second=rate,
            burst=burst,
            concurrent=usual.concurrent if key_limits.concurrent is None else key_limits.concurrent,
            tokens_per_minute=usual.tokens_per_minute
            if key_limits.tokens_per_minute is None
            else key_limits.tokens_per_minute,
        )


def take(empty_at: float, now: float, interval: float, burst: int) -> tuple[float, float]:
    """One request on a meter: (when it will be empty, seconds to wait). Nothing moves where there is a wait."""
    moved = max(empty_at, now) + interval
    wait = moved - now - burst * interval
    return (moved, 0.0) if wait <= TOLERANCE_SECONDS else (empty_at, wait)


def left_over(empty_at: float, now: float, interval: float, burst: int) -> int:
    """How many requests the meter would take at once."""
    return max(0, int(burst - (empty_at - now) / interval + TOLERANCE_SECONDS))


def debt(empty_at: float, now: float) -> float:
    """Seconds until a key that spent more than a minute's worth of tokens has recovered; 0 where it has not."""
    wait = empty_at - now - TOKEN_WINDOW_SECONDS
    return wait if wait > TOLERANCE_SECONDS else 0.0


def charge(empty_at: float, now: float, interval: float, amount: int) -> float:
    """When the meter will be empty after so much was spent on it, whatever it held."""
    return max(empty_at, now) + interval * amount


@dataclass(slots=True)
class Quota:
    """What is left of a key's burst, and when all of it is back."""

    burst: int
    window_seconds: float
    left: int
    reset_seconds: float


class Permit:
    """One request that was let in; whoever let it in is told when it has ended."""

    __slots__ = ("quota", "tokens")

    def __init__(self, quota: Quota | None = None) -> None:
        self.quota = quota
        """None where the key's rate has no limit."""
        self.tokens = 0

    def release(self) -> None:
        """Call it once, however the request ended."""
