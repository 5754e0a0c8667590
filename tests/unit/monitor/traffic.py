"""Synthetic traffic whose truth is known, shaped like pooled sentence embeddings.

Six topics on a sphere of 96 dimensions, unequal shares, a scatter that differs by direction. "Unchanged" windows and
baselines are fresh draws from one mixture; "shifted" windows take a share of their rows from six other topics. The
power of the test on it resembles the one measured on real embeddings: .03-.07 at a share of .2, .95 at .5, 1 at .75.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.monitor.domain.drift import DriftPolicy, Floats, WindowVerdict, mmd_test, seed_of, verdict_of

WIDTH: Final = 96


class Traffic:
    """Draws embeddings of the old topics, or of a mix of old and new ones."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        topics = np.random.default_rng(7)
        self.scale_D = 1 / np.sqrt(1 + np.arange(WIDTH))
        self.old = topics.normal(size=(6, WIDTH)) * self.scale_D
        self.new = self.old + 0.8 * topics.normal(size=(6, WIDTH)) * self.scale_D
        self.shares = np.array([0.28, 0.25, 0.16, 0.14, 0.09, 0.08])

    def rows(self, count: int, shifted: float = 0.0) -> Floats:
        topics = self.generator.choice(6, size=count, p=self.shares)
        from_new = self.generator.random(count) < shifted
        centres = np.where(from_new[:, None], self.new[topics], self.old[topics])
        rows = centres + 0.5 * self.generator.normal(size=(count, WIDTH)) * self.scale_D
        unit_rows: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit_rows


@dataclass(frozen=True)
class FalseAlarms:
    """Of unchanged windows: how many were at or below alpha, and how many alarms (two such in a row) there were."""

    windows: int
    low_windows: int
    alarms: int


def measure_false_alarms(*, baselines: int, windows: int, baseline_rows: int, window_rows: int) -> FalseAlarms:
    """`windows` unchanged windows in a row against each of `baselines` fresh baselines, with the default policy."""
    policy = DriftPolicy()
    low_windows, alarms = 0, 0
    for number in range(baselines):
        traffic = Traffic(seed=number)
        baseline, low = traffic.rows(baseline_rows), 0
        for window in range(windows):
            seed = seed_of("measured", number + 1, window + 1)
            test = mmd_test(baseline, traffic.rows(window_rows), permutations=policy.permutations, seed=seed)
            verdict, low = verdict_of(test.p_value, low, policy)
            low_windows += test.p_value <= policy.alpha
            alarms += verdict is WindowVerdict.DRIFTED
    return FalseAlarms(baselines * windows, low_windows, alarms)
