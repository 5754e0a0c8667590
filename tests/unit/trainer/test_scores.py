"""Scores agree with scikit-learn, and their intervals hold what they promise."""

import numpy as np
import pytest

from services.trainer.stages.scores import macro_f1, paired, score


@pytest.mark.slow  # scikit-learn takes a second to load
@pytest.mark.parametrize("labels", [2, 3, 7])
def test_macro_f1_is_that_of_scikit_learn(labels: int) -> None:
    from sklearn.metrics import f1_score

    dice = np.random.default_rng(labels)
    truth_N, answers_N = dice.integers(0, labels, 60), dice.integers(0, labels, 60)
    assert macro_f1(truth_N, answers_N) == pytest.approx(f1_score(truth_N, answers_N, average="macro"))


def test_a_label_that_nobody_names_does_not_count() -> None:
    assert macro_f1(np.array([0, 3, 3]), np.array([0, 3, 3])) == 1.0


@pytest.mark.slow  # 100 bootstraps
def test_the_interval_covers_the_true_score_about_95_times_in_100() -> None:
    dice = np.random.default_rng(0)
    covered = 0
    for draw in range(100):
        truth_N = dice.integers(0, 2, 300)
        answers_N = np.where(dice.random(300) < 0.8, truth_N, 1 - truth_N)  # macro F1 is .8 in the limit
        interval = score("all", truth_N, answers_N, seed=draw).macro_f1_ci95
        covered += interval.low <= 0.8 <= interval.high
    assert 88 <= covered <= 100


def test_pairs_count_every_row_once() -> None:
    truth_N, ours_N, theirs_N = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 0]), np.array([0, 1, 1, 1, -1])
    counts = paired("all", truth_N, ours_N, theirs_N)
    assert (counts.both, counts.candidate_only, counts.champion_only, counts.neither) == (2, 1, 1, 1)
