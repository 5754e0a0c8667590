"""Intervals and tests for the few proportions that the demo tells."""

import math
from typing import Final

Z95: Final = 1.959963984540054


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95% score interval of a proportion; the whole of [0, 1] without rows.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927) 209-212.
    """
    if rows == 0:
        return 0.0, 1.0
    share, square = right / rows, Z95 * Z95
    centre = (share + square / (2 * rows)) / (1 + square / rows)
    half = Z95 * math.sqrt(share * (1 - share) / rows + square / (4 * rows * rows)) / (1 + square / rows)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(only_before: int, only_after: int) -> float:
    """Two-sided exact p-value that both are right equally often, from the rows on which they differ.

    Q. McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12 (1947).
    """
    differing, fewer = only_before + only_after, min(only_before, only_after)
    if differing == 0:
        return 1.0
    tail = sum(math.comb(differing, count) for count in range(fewer + 1)) / (1 << differing)
    return min(1.0, 2 * tail)
