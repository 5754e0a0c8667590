"""The network that is trained: an encoder of `transformers`, mean pooling and a linear head.

Shapes: B texts, T tokens, D width, C labels.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from services.trainer.errors import NotAnEncoder, TokenizerDoesNotFit
from services.trainer.stages.base_model import BaseModel
from services.trainer.stages.pretrained import load_config, load_encoder

_DROPOUT: Final = ("hidden_dropout_prob", "dropout", "mlp_dropout")
"""What architectures call the dropout between layers; the head takes the same."""


class Classifier(nn.Module):
    """Gives `logits` [B, C] and `embedding` [B, D]: the mean over real tokens, scaled to unit length.

    The head reads the unscaled mean, as the measured recipe does.
    """

    def __init__(self, encoder: Any, labels: int) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.dropout = nn.Dropout(next((getattr(config, name) for name in _DROPOUT if hasattr(config, name)), 0.0))
        self.head = nn.Linear(config.hidden_size, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BTD = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0].to(torch.float32)
        weights_BT1 = attention_mask[:, :, None].to(torch.float32)
        mean_BD = (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1.0)
        logits_BC: Tensor = self.head(self.dropout(mean_BD))
        length_B1 = mean_BD.square().sum(1, keepdim=True).clamp(min=1e-24).sqrt()
        return logits_BC.to(torch.float32), mean_BD / length_B1

    @property
    def positions(self) -> int:
        """The longest text that it reads, in tokens."""
        return positions_of(self.encoder)


def classifier(base: BaseModel, labels: int, seed: int) -> Classifier:
    """The base model with a new head that depends on the seed alone. Raises a kind of UnsupportedBaseModel."""
    encoder = load_encoder(base.folder, load_config(base.folder, base.config))
    _check_answers(encoder)
    _check_tokenizer(base, encoder.get_input_embeddings().num_embeddings)
    torch.manual_seed(seed)
    return Classifier(encoder, labels)


def freeze(model: Classifier, layers: int) -> None:
    """Word embeddings do not learn; with `layers`, nor do the other embeddings and the lowest layers."""
    model.requires_grad_(True)
    model.encoder.get_input_embeddings().requires_grad_(False)
    embeddings = getattr(model.encoder, "embeddings", None)  # some have the words' alone, which are frozen above
    if layers and embeddings is not None:
        embeddings.requires_grad_(False)
    for layer in _layers_of(model.encoder)[:layers]:
        layer.requires_grad_(False)


def positions_of(encoder: Any) -> int:
    """Rows of its position embeddings, less those that RoBERTa and its kin leave to padding."""
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - skipped
    return int(getattr(encoder.config, "max_position_embeddings", _NO_LIMIT))


_NO_LIMIT: Final = 8192
"""Where positions are computed rather than learned; the longest that an artifact may say."""


def _layers_of(encoder: Any) -> list[nn.Module]:
    """Lowest first; none where all layers share their weights, as in ALBERT."""
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == encoder.config.num_hidden_layers:
            return list(module)
    return []


def _check_answers(encoder: Any) -> None:
    """Two tokens in, two vectors out: what an encoder of text promises."""
    tokens_BT = torch.ones((1, 2), dtype=torch.int64)
    try:
        with torch.inference_mode():
            hidden_BTD = encoder(input_ids=tokens_BT, attention_mask=tokens_BT)[0]
    except Exception as error:  # images, boxes and tables are asked for in as many ways
        raise NotAnEncoder(problem="it does not run on tokens and a mask alone") from error
    if tuple(hidden_BTD.shape) != (1, 2, encoder.config.hidden_size):
        raise NotAnEncoder(problem="it does not give one vector a token")


def _check_tokenizer(base: BaseModel, rows: int) -> None:
    highest = max(base.tokenizer().get_vocab(with_added_tokens=True).values(), default=0)
    if highest >= rows:
        raise TokenizerDoesNotFit(token=highest, rows=rows)
