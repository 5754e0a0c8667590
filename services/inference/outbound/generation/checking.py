"""Checks that a model that generates answers as serving needs it to, in the process of `outbound/checking.py`.

Shapes: V vocabulary.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from services.contracts.artifact import DecoderSpec, Precision, graph_file
from services.contracts.errors import BadField
from services.contracts.tasks.generation import Message
from services.inference.domain.sampling import Logits
from services.inference.errors import ArtifactRefused
from services.inference.outbound.generation.decoder import Decoder
from services.inference.outbound.generation.session import open_decoder_session
from services.inference.outbound.generation.text import TextCodec

SAMPLES: Final = (
    "Reads.",
    "Returns the number of bytes written to the stream.",
    "Starts a thread that waits until every message of the queue has been handled, then closes the connection.",
)
_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
_ROWS: Final = len(SAMPLES)
_STEPS: Final = 3
TOLERANCE: Final = 1e-3
"""Of a logit, relative to the largest: on one device the same numbers come out to the last bit."""


def check_decoder(folder: Path, spec: DecoderSpec, precision: Precision) -> None:
    """A prompt in pieces comes out as in one, and an answer in company as alone. Raises ArtifactRefused."""
    codec = TextCodec.open(folder, spec, lambda: _TIME)
    prompts = [_tokens(codec, spec, text) for text in SAMPLES]
    session = open_decoder_session(folder / graph_file(precision), 1)
    length = min(spec.context_length, max(map(len, prompts)) + _STEPS + 1)
    decoder = Decoder(session, rows=_ROWS, length=length, head_size=spec.head_size)
    try:
        _check_pieces(decoder, spec, prompts[-1])
        _check_company(decoder, spec, prompts)
        decoder.prefill(0, [spec.vocabulary_size - 1], 0)
    except ArtifactRefused:
        raise
    except Exception as error:
        raise ArtifactRefused("fails_to_run", "its graph fails on an ordinary prompt") from error


def _tokens(codec: TextCodec, spec: DecoderSpec, text: str) -> list[int]:
    """Of the text as it stands; the template too must take a conversation, where there is one."""
    ids = codec.encode(text, "inputs[0]")
    if not ids or max(ids) >= spec.vocabulary_size or len(ids) >= spec.context_length - _STEPS:
        raise ArtifactRefused("bad_tokenizer", "its tokenizer gives no tokens, or such as the model does not know")
    if codec.has_template:
        try:
            codec.encode((Message("user", text),), "messages")
        except BadField as error:
            raise ArtifactRefused("bad_template", "its chat template does not take a message of a user") from error
    return ids


def _check_pieces(decoder: Decoder, spec: DecoderSpec, prompt: Sequence[int]) -> None:
    at_once_V = _finite(decoder.prefill(0, prompt, 0), spec).copy()
    half = len(prompt) // 2
    decoder.prefill(1, prompt[:half], 0)
    _compare(_finite(decoder.prefill(1, prompt[half:], half), spec), at_once_V, "in pieces")


def _check_company(decoder: Decoder, spec: DecoderSpec, prompts: Sequence[Sequence[int]]) -> None:
    alone = []
    for prompt in prompts:
        token = int(decoder.prefill(0, prompt, 0).argmax())
        for step in range(_STEPS):
            logits_V = _finite(decoder.step([token], [len(prompt) + step])[0], spec)
            token = int(logits_V.argmax())
        alone.append(logits_V.copy())
    tokens = [int(decoder.prefill(row, prompt, 0).argmax()) for row, prompt in enumerate(prompts)]
    for step in range(_STEPS):
        logits_BV = decoder.step(tokens, [len(prompt) + step for prompt in prompts])
        tokens = [int(token) for token in logits_BV.argmax(axis=1)]
    for row, alone_V in enumerate(alone):
        _compare(logits_BV[row], alone_V, "in company")


def _finite(logits_V: Logits, spec: DecoderSpec) -> Logits:
    if logits_V.shape != (spec.vocabulary_size,):
        raise ArtifactRefused("wrong_outputs", "its logits are not as many as its description says")
    if not np.isfinite(logits_V).all():
        raise ArtifactRefused("not_finite", "its outputs are not finite numbers")
    return logits_V


def _compare(logits_V: Logits, expected_V: Logits, how: str) -> None:
    difference = float(np.abs(logits_V - expected_V).max())
    if difference > TOLERANCE * max(1.0, float(np.abs(expected_V).max())):
        raise ArtifactRefused("batch_dependent", f"it answers differently {how} (by {difference:.2g})")
