"""How likely a model finds the learned tokens of examples: perplexity and token accuracy, with bootstrap intervals.

Shapes: N rows, R resamples, B examples, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from services.trainer.stages.decoder.answers import RESAMPLES, AnswerScore, Values, interval
from services.trainer.stages.decoder.masks import IGNORED, Example


@dataclass(frozen=True)
class RowLikelihood:
    """Of one example's learned tokens. `loss` is the sum of their negative log likelihoods, in nats."""

    tokens: int
    loss: float
    right: int


def row_likelihoods(model: Any, examples: Sequence[Example], batch_size: int, pad_id: int) -> list[RowLikelihood]:
    """In the examples' order, which are padded at their ends; `model` is one of transformers, in evaluation mode."""
    rows: list[RowLikelihood] = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        length = max(len(example.ids) for example in batch)
        gaps = [length - len(example.ids) for example in batch]
        ids = [[*example.ids, *[pad_id] * gap] for example, gap in zip(batch, gaps, strict=True)]
        labels = [[*example.labels, *[IGNORED] * gap] for example, gap in zip(batch, gaps, strict=True)]
        mask = [[1] * len(example.ids) + [0] * gap for example, gap in zip(batch, gaps, strict=True)]
        ids_BT, labels_BT, mask_BT = (torch.tensor(part, device=model.device) for part in (ids, labels, mask))
        rows += _of_batch(model, ids_BT, labels_BT, mask_BT)
    return rows


def _of_batch(model: Any, ids_BT: torch.Tensor, labels_BT: torch.Tensor, mask_BT: torch.Tensor) -> list[RowLikelihood]:
    with torch.inference_mode():
        logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, :-1].float()
        labels_BT = labels_BT[:, 1:]
        loss_BT = cross_entropy(logits_BTV.transpose(1, 2), labels_BT, ignore_index=IGNORED, reduction="none")
        right_BT = logits_BTV.argmax(-1) == labels_BT
    tokens_B = (labels_BT != IGNORED).sum(1)
    parts = (tokens_B.tolist(), loss_BT.sum(1).tolist(), right_BT.sum(1).tolist())
    return [RowLikelihood(tokens, loss, right) for tokens, loss, right in zip(*parts, strict=True)]


def score_likelihood(rows: Sequence[RowLikelihood], seed: int) -> dict[str, AnswerScore]:
    """Perplexity and token accuracy over all learned tokens; rows are what is resampled."""
    parts_N3: Values = np.array([(row.tokens, row.loss, row.right) for row in rows], dtype=np.float64)
    weights_RN = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES)
    tokens_R, loss_R, right_R = (weights_RN @ parts_N3).T
    tokens, loss, right = parts_N3.sum(0)
    return {
        "perplexity": AnswerScore(float(np.exp(loss / tokens)), interval(np.exp(loss_R / tokens_R))),
        "token_accuracy": AnswerScore(float(right / tokens), interval(right_R / tokens_R)),
    }
