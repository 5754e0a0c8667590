"""How the tokens of an answer are drawn from the model's logits.

Shapes: V vocabulary, C candidates that are left.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from services.contracts.tasks.generation import SamplingOptions

Logits: TypeAlias = npt.NDArray[np.float32]
_Weights: TypeAlias = npt.NDArray[np.float64]
_Ids: TypeAlias = npt.NDArray[np.int64]

_HEADS: Final = (64, 1_024)
GREEDY: Final = 1e-5
"""A temperature below it takes the likeliest token."""


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A token with the log probability that the model gives it, before any option changes it."""

    token: int
    logprob: float = 0.0
    top: Sequence[tuple[int, float]] = ()
    """The likeliest tokens with theirs, best first."""


@dataclass(slots=True)
class Sampler:
    """Draws the tokens of one answer, one after the other. What it draws depends on its arguments alone."""

    options: SamplingOptions
    seed: Sequence[int]
    """Numbers that no other answer has: the request's, and the answer's within it."""
    prompt: Sequence[int]
    top_logprobs: int | None = None
    _counts: Counter[int] = field(default_factory=Counter)
    _generator: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._generator = np.random.Generator(np.random.Philox(self.seed))

    def draw(self, logits_V: Logits) -> DrawnToken:
        """The next token; `logits_V` is left as it is."""
        adjusted_V = self._adjusted(logits_V)
        token = int(adjusted_V.argmax()) if self.options.temperature < GREEDY else self._sampled(adjusted_V)
        self._counts[token] += 1
        if self.top_logprobs is None:
            return DrawnToken(token)
        logprobs_V = log_softmax(logits_V)
        top_C = likeliest(logprobs_V, self.top_logprobs)
        top = [(int(other), float(logprobs_V[other])) for other in top_C]
        return DrawnToken(token, float(logprobs_V[token]), top)

    def _adjusted(self, logits_V: Logits) -> Logits:
        """With bias and penalties; a copy where there are any."""
        options = self.options
        repeats = options.repetition_penalty != 1
        if not (options.logit_bias or options.frequency_penalty or options.presence_penalty or repeats):
            return logits_V
        adjusted_V = logits_V.copy()
        if repeats:
            self._penalise_repetition(adjusted_V)
        for token, bias in options.logit_bias.items():
            if token < len(adjusted_V):
                adjusted_V[token] += bias
        if self._counts:
            tokens_C = np.fromiter(self._counts.keys(), dtype=np.int64)
            counts_C = np.fromiter(self._counts.values(), dtype=np.float32)
            adjusted_V[tokens_C] -= options.frequency_penalty * counts_C + options.presence_penalty
        return adjusted_V

    def _penalise_repetition(self, logits_V: Logits) -> None:
        """Keskar and others, CTRL (2019), section 4.1, of prompt and answer, for negative logits the other way."""
        seen_C = np.unique(np.array([*self.prompt, *self._counts], dtype=np.int64))
        seen_C = seen_C[seen_C < len(logits_V)]
        values_C = logits_V[seen_C]
        penalty = self.options.repetition_penalty
        logits_V[seen_C] = np.where(values_C > 0, values_C / penalty, values_C * penalty)

    def _sampled(self, logits_V: Logits) -> int:
        """By temperature, top-k, top-p, min-p, in this order; the likeliest token always stays."""
        options, ids_C = self.options, None
        if 0 < options.top_k < len(logits_V):
            ids_C = likeliest(logits_V, options.top_k)
            logits_V = logits_V[ids_C]
        weights_C = _softmax(logits_V, options.temperature)
        if options.top_p < 1:
            nucleus_C = _nucleus(weights_C, options.top_p)
            ids_C = nucleus_C if ids_C is None else ids_C[nucleus_C]
            weights_C = weights_C[nucleus_C]
        if options.min_p > 0:
            weights_C = np.where(weights_C >= options.min_p * weights_C.max(), weights_C, 0)
        sums_C = np.cumsum(weights_C)
        drawn = int(np.searchsorted(sums_C, self._generator.random() * sums_C[-1], side="right"))
        return drawn if ids_C is None else int(ids_C[drawn])


def _softmax(logits_V: Logits, temperature: float) -> _Weights:
    scaled_V = (logits_V - logits_V.max()) * np.float32(1 / temperature)
    weights_V: _Weights = np.exp(scaled_V).astype(np.float64)
    weights_V /= weights_V.sum()
    return weights_V


def _nucleus(weights_C: _Weights, share: float) -> _Ids:
    """The likeliest, best first, that hold this share of the probability together (Holtzman and others, 2020).

    A whole vocabulary is sorted only where the distribution is so flat that its head does not hold the share.
    """
    for count in _HEADS:
        if count >= len(weights_C):
            break
        ids_C = likeliest(weights_C, count)
        if (sums_C := np.cumsum(weights_C[ids_C]))[-1] >= share:
            return ids_C[: int(np.searchsorted(sums_C, share)) + 1]
    ids_C = likeliest(weights_C, len(weights_C))
    sums_C = np.cumsum(weights_C[ids_C])
    return ids_C[: int(np.searchsorted(sums_C, share)) + 1]


def likeliest(logits_V: Logits | _Weights, count: int) -> _Ids:
    """The `count` highest, best first; equal ones by their number."""
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    count = min(count, len(logits_V))
    least = np.partition(logits_V, len(logits_V) - count)[len(logits_V) - count]
    candidates_C: _Ids = np.flatnonzero(logits_V >= least)
    order_C = np.argsort(-logits_V[candidates_C], kind="stable")[:count]
    return candidates_C[order_C]


def log_softmax(logits_V: Logits) -> _Weights:
    shifted_V = logits_V.astype(np.float64) - float(logits_V.max())
    result: _Weights = shifted_V - np.log(np.exp(shifted_V).sum())
    return result
