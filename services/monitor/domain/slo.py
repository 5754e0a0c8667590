"""Objectives of service: how many requests were good, how fast the budget of bad ones burns.

Sources: Wilson, "Probable inference", JASA 22 (1927); Beyer et al., "The Site Reliability Workbook" (2018), chapter 5,
for burn rates over a long and a short window.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

FIRST_BOUND_MS: Final = 0.1
GROWTH: Final = 1.1
BUCKETS: Final = 128
"""Latencies up to 18 s within 5%; the last bucket holds the rest."""

Z95: Final = 1.959963984540054


class Indicator(StrEnum):
    ERRORS = "errors"
    LATENCY = "latency"


@dataclass(frozen=True)
class Interval95:
    low: float
    high: float


@dataclass(frozen=True)
class Counts:
    """Requests of one version in some stretch of time. `slow` counts answered ones above the limit; `histogram` maps a
    bucket to the answered requests in it."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    labelled: int = 0
    right: int = 0
    histogram: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: "Counts") -> "Counts":
        merged = dict(self.histogram)
        for bucket, count in other.histogram.items():
            merged[bucket] = merged.get(bucket, 0) + count
        return Counts(
            self.requests + other.requests,
            self.errors + other.errors,
            self.slow + other.slow,
            self.labelled + other.labelled,
            self.right + other.right,
            merged,
        )


@dataclass(frozen=True)
class Objective:
    """`good_share` of the requests is promised: answered without error, or answered within the latency limit."""

    indicator: Indicator
    good_share: float

    def __post_init__(self) -> None:
        if not 0 < self.good_share < 1:
            raise ValueError("an objective's share of good requests lies between 0 and 1")


@dataclass(frozen=True)
class BurnPolicy:
    """A breach is published when the budget burns at `fast_burn` over the long and the short window alike.

    The long window says that it matters, the short one that it still goes on. 14.4 uses 2% of a 30 days' budget in an
    hour. `minimum_requests` in the long window keep a single failure at night from being an incident.
    """

    fast_burn: float = 14.4
    long_seconds: float = 3600.0
    short_seconds: float = 300.0
    minimum_requests: int = 50


class Burn(StrEnum):
    BREACHED = "breached"
    RECOVERED = "recovered"
    """The short window burns no faster than the budget allows: another breach is published again."""
    BETWEEN = "between"


def burn_rate(counts: Counts, objective: Objective) -> float:
    """Share of bad requests over the share that the objective allows; 0 without requests."""
    answered = counts.requests - counts.errors
    bad, total = (
        (counts.errors, counts.requests) if objective.indicator is Indicator.ERRORS else (counts.slow, answered)
    )
    return bad / total / (1 - objective.good_share) if total else 0.0


def burning(long: Counts, short: Counts, objective: Objective, policy: BurnPolicy) -> Burn:
    over_long, over_short = burn_rate(long, objective), burn_rate(short, objective)
    if long.requests >= policy.minimum_requests and min(over_long, over_short) >= policy.fast_burn:
        return Burn.BREACHED
    return Burn.RECOVERED if over_short <= 1 else Burn.BETWEEN


def wilson(successes: int, total: int) -> Interval95:
    """The 95% score interval of a share; 0 to 1 without observations."""
    if total == 0:
        return Interval95(0.0, 1.0)
    share, z2 = successes / total, Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return Interval95(max(0.0, centre - half), min(1.0, centre + half))


def bucket_of(latency_ms: float) -> int:
    """The histogram's bucket, 0 to `BUCKETS` - 1."""
    if latency_ms <= FIRST_BOUND_MS:
        return 0
    return min(BUCKETS - 1, math.ceil(math.log(latency_ms / FIRST_BOUND_MS) / math.log(GROWTH) - 1e-9))


def quantile_ms(histogram: Mapping[int, int], share: float) -> float:
    """The latency below which `share` of the requests lie, within 5%; 0 for an empty histogram."""
    total = sum(histogram.values())
    reached = 0
    for bucket in sorted(histogram):
        reached += histogram[bucket]
        if reached >= share * total:
            return FIRST_BOUND_MS if bucket == 0 else float(FIRST_BOUND_MS * GROWTH ** (bucket - 0.5))
    return 0.0
