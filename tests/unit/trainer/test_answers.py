"""Metrics of generated answers against references, by hand."""

import pytest

from services.trainer.stages.decoder.answers import GeneratedAnswer, repeated_share, rouge_n, score_answers


@pytest.mark.parametrize(
    ("answer", "reference", "size", "expected"),
    [
        ("the cat sat", "the cat ran", 1, 2 / 3),
        ("the cat sat", "The cat, ran", 2, 1 / 2),
        ("the the the", "the", 1, 1 / 2),
        ("word", "word", 2, 1.0),
        ("", "word", 1, 0.0),
    ],
)
def test_runs_of_words_in_common(answer: str, reference: str, size: int, expected: float) -> None:
    assert rouge_n(answer, reference, size) == pytest.approx(expected)


def test_repetition_is_the_share_of_runs_that_came_before() -> None:
    assert repeated_share("a b c d a b c d") == pytest.approx(1 / 5)
    assert repeated_share("a b c") == 0


def test_every_metric_has_its_mean_within_its_interval_and_the_same_by_the_same_seed() -> None:
    answers = [
        GeneratedAnswer("the cat sat", "the  cat sat", ended=True),
        GeneratedAnswer("a b c d a b c d", "a b", ended=False),
    ] * 10
    scores = score_answers(answers, 7)
    assert {name: round(score.mean, 3) for name, score in scores.items()} == {
        "exact_match": 0.5,
        "rouge_1": 0.7,
        "rouge_2": 0.625,
        "rouge_l": 0.7,
        "never_ends": 0.5,
        "repeated": 0.1,
        "length_ratio": 2.2,
    }
    assert all(score.ci95.low <= score.mean <= score.ci95.high for score in scores.values())
    assert scores == score_answers(answers, 7)


def test_no_answers_have_no_score() -> None:
    with pytest.raises(ValueError, match="no answers"):
        score_answers([], 7)
