"""Has the traffic moved away from what the version learned from? Maximum mean discrepancy by permutation.

Shapes: R rows of the baseline, W rows of the window, N = R + W pooled, D width, B permutations.

Sources: Gretton et al., "A Kernel Two-Sample Test", JMLR 13 (2012), eq. 3 (unbiased statistic) and section 8
(median heuristic); Phipson and Smyth, "Permutation P-values Should Never Be Zero" (2010), for (1 + count) / (1 + B).
"""

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TEST_NAME: Final = "mmd-rbf"
SMALLEST_SAMPLE: Final = 8
ROUNDING: Final = 2e-6
"""Statistics nearer than this count as equal: single precision sums of kernel values, which are at most 1."""


class WindowVerdict(StrEnum):
    QUIET = "quiet"
    SUSPECT = "suspect"
    DRIFTED = "drifted"
    UNTESTED = "untested"
    """There was nothing to compare with: the variant has no baseline that can be read."""


@dataclass(frozen=True)
class DriftPolicy:
    """When windows become an alarm.

    With `alpha` .01 and two windows in a row a false alarm comes about once in 10,000 windows (measured: 1 in 9,500,
    over 325 baselines of 500 rows). An unlucky draw of the baseline raises more, since all windows share it: of 240
    baselines two had 3 of 25 windows at or below alpha. So large baselines are better.
    """

    window_rows: int = 200
    permutations: int = 200
    alpha: float = 0.01
    consecutive: int = 2
    baseline_rows: int = 500
    """More rows than this are thinned evenly: the time of a test grows with the square of the rows."""

    def __post_init__(self) -> None:
        if self.permutations + 1 < 1 / self.alpha:
            raise ValueError(f"{self.permutations} permutations cannot reach a p-value of {self.alpha}")


@dataclass(frozen=True)
class DriftTest:
    """`statistic` is the unbiased MMD squared (may be slightly negative when nothing moved); `p_value` > 0."""

    statistic: float
    p_value: float
    bandwidth: float
    baseline_rows: int
    window_rows: int
    permutations: int


def seed_of(model: str, version: int, window: int) -> int:
    """The same window of the same version is always judged by the same permutations."""
    digest = hashlib.sha256(f"{model}\x00{version}\x00{window}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def thinned(rows_RD: Floats, limit: int) -> Floats:
    """At most `limit` rows, evenly spread over the given ones, in their order."""
    if len(rows_RD) <= limit:
        return rows_RD
    picks = np.linspace(0, len(rows_RD) - 1, limit).round().astype(np.intp)
    return rows_RD[picks]


def mmd_test(baseline_RD: Floats, window_WD: Floats, *, permutations: int, seed: int) -> DriftTest:
    """Test that both samples come from one distribution.

    Exact under exchangeability: kernel and bandwidth depend on the pooled sample alone, so P(p_value <= a) <= a for
    any a. About 8 ms on one core for R = 500, W = 200, D = 384, B = 200. Raises ValueError on fewer than 8 rows,
    on unlike widths and on values that are not finite.
    """
    rows, wide = len(baseline_RD), len(window_WD)
    if min(rows, wide) < SMALLEST_SAMPLE:
        raise ValueError(f"a sample needs {SMALLEST_SAMPLE} rows; there are {rows} and {wide}")
    if baseline_RD.shape[1:] != window_WD.shape[1:]:
        raise ValueError(f"the widths differ: {baseline_RD.shape[1:]} and {window_WD.shape[1:]}")
    pooled_ND = np.concatenate([baseline_RD, window_WD]).astype(np.float32, copy=False)
    if not np.isfinite(pooled_ND).all():
        raise ValueError("an embedding is not finite")
    kernel_NN, bandwidth = rbf_kernel(pooled_ND)
    members_BN = _assignments(rows, wide, permutations, np.random.default_rng(seed))
    statistics_B = _statistics(kernel_NN, members_BN, wide)
    count = int(np.count_nonzero(statistics_B[1:] >= statistics_B[0] - ROUNDING))
    return DriftTest(
        statistic=float(statistics_B[0]),
        p_value=(1 + count) / (1 + permutations),
        bandwidth=bandwidth,
        baseline_rows=rows,
        window_rows=wide,
        permutations=permutations,
    )


def rbf_kernel(pooled_ND: Floats) -> tuple[Floats, float]:
    """exp(-d^2 / 2s^2) with a zero diagonal, and s: the median distance of two different rows.

    When more than half of the pairs coincide the median is zero; the mean distance stands in, and 1 when all coincide.
    """
    squares_N = np.einsum("nd,nd->n", pooled_ND, pooled_ND)
    distances_NN = squares_N[:, None] + squares_N[None, :] - 2 * (pooled_ND @ pooled_ND.T)
    np.maximum(distances_NN, 0, out=distances_NN)
    upper = distances_NN[np.triu_indices(len(pooled_ND), k=1)]
    middle = float(np.partition(upper, len(upper) // 2)[len(upper) // 2])
    if middle <= 1e-12:
        middle = float(upper.mean()) or 1.0
    kernel_NN = np.exp(distances_NN * np.float32(-0.5 / middle))
    np.fill_diagonal(kernel_NN, 0)
    return kernel_NN, math.sqrt(middle)


def _assignments(rows: int, wide: int, permutations: int, generator: np.random.Generator) -> Floats:
    """Who is in the window: row 0 as observed, then `permutations` random draws. Ones and zeros [1 + B, N]."""
    members_BN = np.zeros((permutations + 1, rows + wide), dtype=np.float32)
    members_BN[:, rows:] = 1
    generator.permuted(members_BN[1:], axis=1, out=members_BN[1:])
    return members_BN


def _statistics(kernel_NN: Floats, members_BN: Floats, wide: int) -> NDArray[np.float64]:
    """Unbiased MMD squared of each assignment, from one product: the other two sums follow from the row sums."""
    rows = kernel_NN.shape[0] - wide
    row_sums_N = kernel_NN.sum(axis=1, dtype=np.float64)
    total = float(row_sums_N.sum())
    inside_B = ((members_BN @ kernel_NN) * members_BN).sum(axis=1).astype(np.float64)
    across_B = members_BN.astype(np.float64) @ row_sums_N - inside_B
    outside_B = total - 2 * across_B - inside_B
    statistics_B: NDArray[np.float64] = (
        inside_B / (wide * (wide - 1)) + outside_B / (rows * (rows - 1)) - 2 * across_B / (rows * wide)
    )
    return statistics_B


def verdict_of(p_value: float, low_before: int, policy: DriftPolicy) -> tuple[WindowVerdict, int]:
    """The window's verdict, and how many windows in a row are now at or below alpha."""
    if p_value > policy.alpha:
        return WindowVerdict.QUIET, 0
    low = low_before + 1
    return (WindowVerdict.DRIFTED if low >= policy.consecutive else WindowVerdict.SUSPECT), low
