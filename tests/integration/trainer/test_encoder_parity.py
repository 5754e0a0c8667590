"""Our encoder gives the numbers that transformers' BertModel gives for the same weights."""

import warnings

import numpy as np
import pytest
import torch

from services.trainer.stages.base_model import find_base_model
from services.trainer.stages.batches import encode, pad

TEXTS = ["Open a file.", "Return the arithmetic mean of a sequence of numbers, which must not be empty.", "x"]


@pytest.mark.slow
def test_the_real_weights_give_the_same_hidden_states_padding_included() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of another project
        from transformers.models.bert.modeling_bert import BertModel
    base = find_base_model("all-MiniLM-L6-v2")
    batch = pad(encode(base.tokenizer(), TEXTS, 64), range(len(TEXTS)), base.pad_token_id)
    ids_BT, mask_BT = torch.from_numpy(batch.ids_BT), torch.from_numpy(batch.mask_BT)
    with torch.inference_mode():
        theirs_BTD = BertModel.from_pretrained(base.folder).eval()(input_ids=ids_BT, attention_mask=mask_BT)[0]
        ours_BTD = base.encoder().eval()(ids_BT, mask_BT)
    real = batch.mask_BT.astype(bool)
    np.testing.assert_allclose(ours_BTD.numpy()[real], theirs_BTD.numpy()[real], atol=2e-5)
