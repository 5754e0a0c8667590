"""Accuracy and macro F1 with a bootstrap interval, and answers compared in pairs.

Shapes: N rows, C labels, R resamples. Labels are numbers.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.contracts.training import Interval, PairedCounts, SliceScore
from services.trainer.stages.prepare import Row

Labels = NDArray[np.int64]
RESAMPLES: Final = 1000


def label_numbers(rows: Sequence[Row], labels: Sequence[str]) -> Labels:
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number[row.label] for row in rows], dtype=np.int64)


def macro_f1(truth_N: Labels, answers_N: Labels) -> float:
    """The unweighted mean of F1 over the labels that occur in either."""
    weights_1N = np.ones((1, len(truth_N)))
    return float(_macro_f1(truth_N, answers_N, weights_1N)[0])


def score(name: str, truth_N: Labels, answers_N: Labels, seed: int) -> SliceScore:
    """With a percentile bootstrap interval over rows (Efron and Tibshirani, 1993). NaN-free for N >= 1."""
    dice = np.random.default_rng(seed)
    rows = len(truth_N)
    weights_RN = dice.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES).astype(np.float64)
    low, high = np.percentile(_macro_f1(truth_N, answers_N, weights_RN), [2.5, 97.5])
    return SliceScore(
        name=name,
        rows=rows,
        accuracy=float((truth_N == answers_N).mean()),
        macro_f1=macro_f1(truth_N, answers_N),
        macro_f1_ci95=Interval(low=float(low), high=float(high)),
    )


def paired(name: str, truth_N: Labels, candidate_N: Labels, champion_N: Labels) -> PairedCounts:
    ours, theirs = truth_N == candidate_N, truth_N == champion_N
    return PairedCounts(
        name=name,
        both=int((ours & theirs).sum()),
        candidate_only=int((ours & ~theirs).sum()),
        champion_only=int((~ours & theirs).sum()),
        neither=int((~ours & ~theirs).sum()),
    )


def _macro_f1(truth_N: Labels, answers_N: Labels, weights_RN: NDArray[np.float64]) -> NDArray[np.float64]:
    """One score a row of weights."""
    classes = int(max(truth_N.max(), answers_N.max())) + 1
    one_hot = np.eye(classes)
    truth_NC, answers_NC = one_hot[truth_N], one_hot[answers_N]
    right_RC = weights_RN @ (truth_NC * answers_NC)
    predicted_RC = weights_RN @ (truth_NC + answers_NC)
    occurs_RC = predicted_RC > 0
    f1_RC = np.divide(2 * right_RC, predicted_RC, out=np.zeros_like(predicted_RC), where=occurs_RC)
    means_R: NDArray[np.float64] = f1_RC.sum(1) / occurs_RC.sum(1)
    return means_R
