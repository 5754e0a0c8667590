"""An exported decoder against the model of transformers that it was made of."""

from pathlib import Path
from typing import Any

import pytest
import torch

from services.contracts.artifact import Precision
from services.trainer.errors import TokensDiffer
from services.trainer.stages.decoder.export import export_decoder
from services.trainer.stages.decoder.parity import require_parity
from tests.fixtures.decoders import FAMILIES, TEXT, tiny_decoder, tokenizer

pytestmark = pytest.mark.slow
PROMPTS = ("Reads", "the file whose path is given", TEXT, "holds, a line")
TOKENS = 12


def exported(family: str, folder: Path) -> tuple[Any, list[list[int]]]:
    model = tiny_decoder(family, folder / "source")
    export_decoder(folder / "source", folder / "artifact", family, [Precision.FP32])
    words = tokenizer()
    return model, [words.encode(prompt, add_special_tokens=False) for prompt in PROMPTS]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_chooses_the_same_tokens_alone_and_in_a_padded_batch(family: str, tmp_path: Path) -> None:
    model, prompts = exported(family, tmp_path)
    parity = require_parity(model, tmp_path / "artifact", prompts, TOKENS)
    assert parity.steps == 2 * len(PROMPTS) * TOKENS
    assert parity.difference < 1e-2


def test_a_graph_of_other_weights_is_refused(tmp_path: Path) -> None:
    model, prompts = exported("llama", tmp_path)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(-1)
    with pytest.raises(TokensDiffer) as caught:
        require_parity(model, tmp_path / "artifact", prompts, TOKENS)
    assert caught.value.details["steps"] == 2 * len(PROMPTS) * TOKENS
