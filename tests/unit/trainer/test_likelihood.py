"""Perplexity and token accuracy of the learned tokens alone, whatever the company in a batch."""

from pathlib import Path

import pytest
import torch

from services.trainer.stages.decoder.likelihood import RowLikelihood, row_likelihoods, score_likelihood
from services.trainer.stages.decoder.masks import Example
from tests.fixtures.decoders import tiny_decoder

EXAMPLES = [Example(1, (5, 6, 7, 8), 2), Example(2, (9, 10, 11, 12, 13, 14, 15), 3), Example(3, (20, 21), 1)]


def test_a_row_is_scored_alike_alone_and_padded_and_as_by_hand(tmp_path: Path) -> None:
    model = tiny_decoder("llama", tmp_path)
    alone, together = (row_likelihoods(model, EXAMPLES, size, pad_id=0) for size in (1, 3))
    assert [row.tokens for row in together] == [2, 4, 1]
    for example, one, other in zip(EXAMPLES, alone, together, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
        indexes = range(example.prompt_tokens, len(example.ids))
        loss = -sum(float(logits[index - 1, example.ids[index]]) for index in indexes)
        right = sum(int(logits[index - 1].argmax()) == example.ids[index] for index in indexes)
        for row in (one, other):
            assert row.loss == pytest.approx(loss, rel=1e-4)
            assert row.right == right


def test_all_tokens_count_alike() -> None:
    scores = score_likelihood([RowLikelihood(2, 2.0, 1), RowLikelihood(6, 6.0, 5)] * 5, 7)
    assert scores["perplexity"].mean == pytest.approx(2.71828, rel=1e-4)
    assert scores["token_accuracy"].mean == pytest.approx(6 / 8)
    assert scores["token_accuracy"].ci95.low <= 6 / 8 <= scores["token_accuracy"].ci95.high
