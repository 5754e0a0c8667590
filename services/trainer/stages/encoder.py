"""The network that is trained: a BERT encoder, mean pooling and a linear head.

Written out rather than imported from `transformers`, whose import costs a run 7 s; a test holds it to
the same numbers. Weights keep the names of `BertModel`, so that its safetensors files load.

Shapes: B texts, T tokens, H heads, D width, C labels.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.trainer.stages.base_model import EncoderConfig

_LARGE: Final = -1e4  # masks a score; finite in every float type


class Embeddings(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids_BT: Tensor) -> Tensor:
        places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        words_BTD = self.word_embeddings(ids_BT)
        summed_BTD = words_BTD + self.position_embeddings(places_T) + self.token_type_embeddings.weight[0]
        result: Tensor = self.dropout(self.LayerNorm(summed_BTD))
        return result


class SelfAttention(nn.Module):
    """Without dropout on its weights: that costs a tenth of a step and made no measurable difference."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_BTD: Tensor, mask_B11T: Tensor) -> Tensor:
        query_BHTd, key_BHTd, value_BHTd = (
            part(hidden_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores_BHTT = query_BHTd @ key_BHTd.transpose(-1, -2) * (query_BHTd.shape[-1] ** -0.5)
        weights_BHTT = functional.softmax(scores_BHTT + mask_B11T, dim=-1, dtype=torch.float32)
        mixed_BHTd = weights_BHTT.to(value_BHTd.dtype) @ value_BHTd
        return mixed_BHTd.transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """Projects, drops out, adds what came before and normalises."""

    def __init__(self, width_in: int, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner: Tensor, before_BTD: Tensor) -> Tensor:
        result: Tensor = self.LayerNorm(self.dropout(self.dense(inner)) + before_BTD)
        return result


class Layer(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(config), "output": Residual(config.hidden_size, config)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = Residual(config.intermediate_size, config)

    def forward(self, hidden_BTD: Tensor, mask_B11T: Tensor) -> Tensor:
        mixed_BTD = self.attention["self"](hidden_BTD, mask_B11T)
        attended_BTD = self.attention["output"](mixed_BTD, hidden_BTD)
        result: Tensor = self.output(functional.gelu(self.intermediate["dense"](attended_BTD)), attended_BTD)
        return result


class Encoder(nn.Module):
    """BERT without its pooler (Devlin et al. 2018, arXiv:1810.04805)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        hidden_BTD = self.embeddings(ids_BT)
        mask_B11T = (1.0 - mask_BT[:, None, None, :].to(torch.float32)) * _LARGE
        for layer in self.encoder["layer"].children():
            hidden_BTD = layer(hidden_BTD, mask_B11T)
        return hidden_BTD


class Classifier(nn.Module):
    """Gives `logits` [B, C] and `embedding` [B, D]: the mean over real tokens, scaled to unit length.

    The head reads the unscaled mean, as the measured recipe does.
    """

    def __init__(self, encoder: Encoder, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(encoder.config.hidden_dropout_prob)
        self.head = nn.Linear(encoder.config.hidden_size, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BTD = self.encoder(input_ids, attention_mask).to(torch.float32)
        weights_BT1 = attention_mask[:, :, None].to(torch.float32)
        mean_BD = (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1.0)
        logits_BC: Tensor = self.head(self.dropout(mean_BD))
        length_B1 = mean_BD.square().sum(1, keepdim=True).clamp(min=1e-24).sqrt()
        return logits_BC.to(torch.float32), mean_BD / length_B1
