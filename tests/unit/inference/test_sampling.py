"""Tokens are drawn as their options say, and the same seed draws the same."""

from collections import Counter

import numpy as np
import pytest

from services.contracts.tasks.generation import SamplingOptions
from services.inference.domain.sampling import Logits, Sampler, likeliest, log_softmax

LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.06, 0.04], dtype=np.float32))


def drawn(options: SamplingOptions, count: int = 4_000, logits: Logits = LOGITS) -> Counter[int]:
    """Shares of tokens, each the first of its answer."""
    return Counter(Sampler(options, (seed, 0), ()).draw(logits).token for seed in range(count))


def test_tokens_come_as_often_as_the_model_says() -> None:
    counts = drawn(SamplingOptions())
    for token, share in enumerate((0.4, 0.3, 0.2, 0.06, 0.04)):
        assert counts[token] / 4_000 == pytest.approx(share, abs=0.025)


def test_a_temperature_of_nothing_takes_the_likeliest() -> None:
    assert drawn(SamplingOptions(temperature=0), 50).keys() == {0}


def test_a_low_temperature_sharpens_and_a_high_one_flattens() -> None:
    low, high = drawn(SamplingOptions(temperature=0.5)), drawn(SamplingOptions(temperature=2))
    assert low[0] / 4_000 == pytest.approx(0.16 / (0.16 + 0.09 + 0.04 + 0.0036 + 0.0016), abs=0.025)
    assert low[0] > 4_000 * 0.4 > high[0]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (SamplingOptions(top_k=2), {0, 1}),
        (SamplingOptions(top_p=0.69), {0, 1}),
        (SamplingOptions(top_p=0.71), {0, 1, 2}),
        (SamplingOptions(top_p=1e-9), {0}),
        (SamplingOptions(min_p=0.45), {0, 1, 2}),
        (SamplingOptions(min_p=0.55), {0, 1}),
        (SamplingOptions(top_k=3, top_p=0.75), {0, 1}),
        (SamplingOptions(logit_bias={3: 100.0}), {3}),
        (SamplingOptions(logit_bias={0: -100.0, 1: -100.0, 99: 5.0}), {2, 3, 4}),
    ],
    ids=str,
)
def test_an_option_leaves_the_tokens_that_it_says(options: SamplingOptions, left: set[int]) -> None:
    assert drawn(options, 1_500).keys() == left


def test_top_p_of_a_flat_vocabulary_keeps_the_share_that_it_says() -> None:
    flat = np.zeros(5_000, dtype=np.float32)
    counts = drawn(SamplingOptions(top_p=0.5), 3_000, flat)
    assert max(counts) <= 2_500
    assert len(counts) > 1_000


def test_penalties_count_what_the_answer_holds() -> None:
    logits = np.array([5.0, 4.0, 0.0], dtype=np.float32)
    presence = Sampler(SamplingOptions(temperature=0, presence_penalty=1.5), (1,), ())
    assert [presence.draw(logits).token for _ in range(4)] == [0, 1, 0, 0]
    frequency = Sampler(SamplingOptions(temperature=0, frequency_penalty=1.5), (1,), ())
    assert [frequency.draw(logits).token for _ in range(4)] == [0, 1, 0, 1]


def test_a_repetition_penalty_knows_the_prompt_too_and_pushes_negative_logits_down() -> None:
    options = SamplingOptions(temperature=0, repetition_penalty=2.0)
    positive, negative = np.array([3.0, 2.0], dtype=np.float32), np.array([-1.0, -1.5], dtype=np.float32)
    assert Sampler(options, (1,), [0]).draw(positive).token == 1
    assert Sampler(options, (1,), [0]).draw(negative).token == 1
    assert Sampler(options, (1,), []).draw(positive).token == 0


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    flat = np.zeros(1_000, dtype=np.float32)

    def tokens(*seed: int) -> list[int]:
        sampler = Sampler(SamplingOptions(), seed, ())
        return [sampler.draw(flat).token for _ in range(20)]

    assert tokens(7, 0) == tokens(7, 0)
    assert len({tuple(tokens(*seed)) for seed in ((7, 0), (7, 1), (8, 0), (2**64 - 1, 0))}) == 4


def test_log_probabilities_are_those_of_the_model_and_not_of_the_options() -> None:
    sampler = Sampler(SamplingOptions(temperature=0, logit_bias={4: 50.0}), (1,), (), top_logprobs=2)
    token = sampler.draw(LOGITS)
    assert token.token == 4
    assert token.logprob == pytest.approx(np.log(0.04), abs=1e-5)
    assert [other for other, _ in token.top] == [0, 1]
    assert token.top[0][1] == pytest.approx(np.log(0.4), abs=1e-5)


def test_the_logits_that_were_given_stay_as_they_are() -> None:
    logits = LOGITS.copy()
    Sampler(SamplingOptions(presence_penalty=1, repetition_penalty=2, logit_bias={0: 1.0}), (1,), [0]).draw(logits)
    assert (logits == LOGITS).all()


def test_equal_logits_are_ordered_by_their_number() -> None:
    logits = np.array([1.0, 2.0, 2.0, 2.0, 0.0], dtype=np.float32)
    assert likeliest(logits, 2).tolist() == [1, 2]
    assert likeliest(logits, 99).tolist() == [1, 2, 3, 0, 4]
    assert likeliest(logits, 0).tolist() == []


def test_log_softmax_of_large_logits_is_finite() -> None:
    values = log_softmax(np.array([1e4, 0.0], dtype=np.float32))
    assert values.tolist() == [0.0, -1e4]
