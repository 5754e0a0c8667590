"""The part of `transformers` that is used: configuration, encoder and tokenizer of a folder, by its Auto classes.

Nothing is downloaded here, weights are read from safetensors alone, and code that comes with a model is never run.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.trainer.errors import BadModelConfig, NoFastTokenizer, NotAnEncoder, RemoteCode, WeightsDoNotFit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log: Final = logging.getLogger("millrace.run")
ATTENTION: Final = "eager"
"""Plain matrix products: what the exporter and the quantiser read, and on a CPU no slower (docs/benchmarks.md)."""
_NO_ATTENTION_DROPOUT: Final = ("attention_probs_dropout_prob", "attention_dropout")
_UNUSED: Final = ("pooler.", "position_ids")
_VOCABULARIES: Final = ("vocab.*", "*.model", "merges.txt", "*.codes")
_TRUSTED: Final[Mapping[str, Any]] = {"local_files_only": True, "trust_remote_code": False}


def load_config(folder: Path, content: Mapping[str, Any]) -> Any:
    """The configuration, of which `content` is the file's. Raises RemoteCode, NotAnEncoder, BadModelConfig."""
    with _quietly():
        from transformers import AutoConfig
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        kind = str(content.get("model_type"))[:60]
        if kind not in CONFIG_MAPPING_NAMES:
            raise RemoteCode if "auto_map" in content else NotAnEncoder(problem=f"transformers knows no {kind!r}")
        if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise NotAnEncoder(problem=f"{kind!r} has no masked language model")
        try:
            config = AutoConfig.from_pretrained(folder, **_TRUSTED)
        except Exception as error:  # validation differs from one architecture to the next
            raise BadModelConfig(problem=f"transformers does not read it as {kind!r}") from error
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        raise NotAnEncoder(problem=f"this {kind!r} has a decoder")
    for name in _NO_ATTENTION_DROPOUT:  # it costs a tenth of a step and made no measurable difference
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def load_encoder(folder: Path, config: Any) -> Any:
    """The network with its weights in float32, without a pooler. Raises WeightsDoNotFit."""
    with _quietly():
        from transformers import AutoModel

        try:
            encoder, matches = AutoModel.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                dtype="float32",
                attn_implementation=ATTENTION,
                output_loading_info=True,
                **_TRUSTED,
            )
        except Exception as error:  # torch, safetensors and transformers each have their own
            log.warning("weights not loadable", exc_info=error)
            raise WeightsDoNotFit(problem="transformers cannot load them") from error
    missing = sorted(name for name in matches["missing_keys"] if not any(part in name for part in _UNUSED))
    if missing:
        raise WeightsDoNotFit(problem=f"{len(missing)} tensors are missing, {missing[0][:100]} first")
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def load_tokenizer(folder: Path) -> "Tokenizer":
    """The fast tokenizer that transformers makes of the folder's files. Raises NoFastTokenizer."""
    if not any(path for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        # transformers would make one that knows its special tokens alone
        raise NoFastTokenizer(problem="there is neither a tokenizer.json nor a vocabulary")
    with _quietly():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, **_TRUSTED)
        except Exception as error:  # each kind of tokenizer has its own
            log.warning("tokenizer not loadable", exc_info=error)
            raise NoFastTokenizer(problem="transformers makes none of its files") from error
    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise NoFastTokenizer(problem=f"{type(tokenizer).__name__} is written in Python")
    return backend


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's progress bars, advice and deprecations, which are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging as chatter

        chatter.set_verbosity_error()
        chatter.disable_progress_bar()
        yield
