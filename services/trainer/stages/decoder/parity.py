"""Whether an exported decoder chooses the tokens that the trained model chooses, each prompt alone and all together.

Together means as they are served: the prompts' caches lie in one batch, the shorter ones padded at their ends, and the
attention mask alone says how far each reaches. Both follow the trained model's greedy tokens, so that one near tie
does not make all that comes after it differ.

Shapes: B prompts, T tokens, V vocabulary, L cached positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from services.contracts.artifact import SPEC_FILE, DecoderSpec, Precision, graph_file
from services.trainer.errors import TokensDiffer

NEAR_TIE: Final = 1e-3
"""Two tokens whose logits are nearer than this to each other in the trained model are equally right."""
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """`differing` of the `steps` chose another token than the trained model."""

    steps: int
    differing: int
    difference: float
    """Largest absolute difference of a logit."""


def require_parity(model: Any, artifact: Path, prompts: Sequence[Sequence[int]], tokens: int) -> Parity:
    """Of the fp32 graph against a model of transformers. Raises TokensDiffer where one step differs."""
    parity = measure_parity(model, artifact, prompts, tokens)
    if parity.differing:
        raise TokensDiffer(problem="parity", differing=parity.differing, steps=parity.steps)
    return parity


def measure_parity(model: Any, artifact: Path, prompts: Sequence[Sequence[int]], tokens: int) -> Parity:
    """Over `tokens` greedy tokens after each prompt."""
    expected = [_expected(model, prompt, tokens) for prompt in prompts]
    spec = DecoderSpec.model_validate_json((artifact / SPEC_FILE).read_bytes())
    graph = _Cache(artifact / graph_file(Precision.FP32), spec.head_size)
    answers = [answer for answer, _ in expected]
    expected_BTV = np.stack([logits_TV for _, logits_TV in expected])
    alone = [graph.follow([prompt], [answer]) for prompt, answer in zip(prompts, answers, strict=True)]
    measured = np.stack([np.concatenate(alone), graph.follow(prompts, answers)])
    chosen = measured.argmax(-1)
    lost = expected_BTV.max(-1) - np.take_along_axis(expected_BTV[None].repeat(2, 0), chosen[..., None], -1)[..., 0]
    return Parity(chosen.size, int((lost > NEAR_TIE).sum()), float(np.abs(measured - expected_BTV).max()))


def _expected(model: Any, prompt: Sequence[int], tokens: int) -> tuple[list[int], Logits]:
    """The model's greedy tokens, its end tokens like any other, and the logits that each was chosen by."""
    import torch

    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(tokens):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        logits_TV: Logits = model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].float().numpy()
    return ids[len(prompt) :], logits_TV


class _Cache:
    """A graph of the builder, run with a cache that grows by a position a step."""

    def __init__(self, path: Path, width: int) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = [value for value in self._session.get_inputs() if value.name.startswith("past_")]
        self._empty = {value.name: np.zeros((1, value.shape[1], 0, width), np.float32) for value in inputs}
        self._outputs = [value.name for value in self._session.get_outputs()]

    def follow(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Logits:
        """Logits [B, T, V] of each token of the answers, which all have T tokens."""
        caches, first_logits = [], []
        for prompt in prompts:
            logits_1V, cache = self._run(np.array([prompt]), np.array([len(prompt)]), self._empty)
            first_logits.append(logits_1V)
            caches.append(cache)
        past = {name: _stacked([cache[name] for cache in caches]) for name in self._empty}
        lengths_B = np.array([len(prompt) for prompt in prompts])
        steps = [np.concatenate(first_logits)]
        for ids_B in np.array(answers).T[:-1]:
            lengths_B += 1
            logits_BV, past = self._run(ids_B[:, None], lengths_B, past)
            steps.append(logits_BV)
        return np.stack(steps, 1)

    def _run(
        self, ids_BT: NDArray[np.int64], lengths_B: NDArray[np.int64], past: dict[str, Logits]
    ) -> tuple[Logits, dict[str, Logits]]:
        total = next(iter(past.values())).shape[2] + ids_BT.shape[1]
        mask_BL = (np.arange(total)[None] < lengths_B[:, None]).astype(np.int64)
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BL, **past}
        outputs = dict(zip(self._outputs, self._session.run(None, inputs), strict=True))
        updated = {name: outputs[name.replace("past_key_values", "present")] for name in self._empty}
        return outputs["logits"][:, -1], updated


def _stacked(rows: Sequence[Logits]) -> Logits:
    """Caches [1, heads, L, width] as one, padded at their ends."""
    longest = max(row.shape[2] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, 0), (0, longest - row.shape[2]), (0, 0))) for row in rows])
