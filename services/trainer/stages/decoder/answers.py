"""How good generated answers are against references, with percentile bootstrap intervals over rows.

Shapes: N rows, R resamples.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.contracts.tasks.overlap import rouge_l
from services.contracts.training import Interval

RESAMPLES: Final = 1000
REPEATED_WORDS: Final = 4
_WORD: Final = re.compile(r"\w+")
Values = NDArray[np.float64]


@dataclass(frozen=True)
class GeneratedAnswer:
    text: str
    reference: str
    ended: bool
    """By an end token, before the limit of tokens."""


@dataclass(frozen=True)
class AnswerScore:
    """The mean over rows. The length ratio is the answers' words over the references'."""

    mean: float
    ci95: Interval


def score_answers(answers: Sequence[GeneratedAnswer], seed: int) -> dict[str, AnswerScore]:
    """By the metric's name. Raises ValueError where there is no answer."""
    if not answers:
        raise ValueError("there are no answers to score")
    rows = len(answers)
    weights_RN = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES) / rows
    return {
        name: _mean(np.array([metric(answer) for answer in answers], dtype=np.float64), weights_RN)
        for name, metric in METRICS.items()
    } | {"length_ratio": _length_ratio(answers, weights_RN)}


def _exact_match(answer: GeneratedAnswer) -> float:
    return float(" ".join(answer.text.split()) == " ".join(answer.reference.split()))


def repeated_share(text: str) -> float:
    """Of the runs of four words, those that occurred before in the text; 0 where there are none."""
    words = text.lower().split()
    runs = [tuple(words[start : start + REPEATED_WORDS]) for start in range(len(words) - REPEATED_WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def rouge_n(answer: str, reference: str, size: int) -> float:
    """The F1 of runs of `size` words, each counted as often as it occurs, 0 to 1; 1 where neither text has a run.

    Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004), section 2, with beta 1 and lower case.
    """
    left, right = (_runs(text, size) for text in (answer, reference))
    if not left or not right:
        return float(left == right)
    return 2 * (left & right).total() / (left.total() + right.total())


def _runs(text: str, size: int) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))


METRICS: Final[dict[str, Callable[[GeneratedAnswer], float]]] = {
    "exact_match": _exact_match,
    "rouge_1": lambda answer: rouge_n(answer.text, answer.reference, 1),
    "rouge_2": lambda answer: rouge_n(answer.text, answer.reference, 2),
    "rouge_l": lambda answer: rouge_l(answer.text, answer.reference),
    "never_ends": lambda answer: float(not answer.ended),
    "repeated": lambda answer: repeated_share(answer.text),
}


def _mean(values_N: Values, weights_RN: Values) -> AnswerScore:
    return AnswerScore(float(values_N.mean()), interval(weights_RN @ values_N))


def _length_ratio(answers: Sequence[GeneratedAnswer], weights_RN: Values) -> AnswerScore:
    answers_N = np.array([len(answer.text.split()) for answer in answers], dtype=np.float64)
    references_N = np.array([max(1, len(answer.reference.split())) for answer in answers], dtype=np.float64)
    ratios_R = (weights_RN @ answers_N) / (weights_RN @ references_N)
    return AnswerScore(float(answers_N.sum() / references_N.sum()), interval(ratios_R))


def interval(values_R: Values) -> Interval:
    low, high = np.percentile(values_R, [2.5, 97.5])
    return Interval(low=float(low), high=float(high))
