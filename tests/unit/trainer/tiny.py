"""A base model of 50 kB with a tokenizer of its own, and data sets that it can learn in a second."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from services.kit.core.clock import SystemClock
from services.kit.identity.auth import ensure_keys
from services.kit.storage.artifacts import ArtifactStore
from services.trainer.domain.spec import RUN_FILE, SPEC_FILE, TrainingSpec
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.runner import Runner
from services.trainer.stages.spec import RunSpec
from services.trainer.stages.stopping import Stopping

SUBJECTS = {
    "fruit": "apple pear plum cherry grape melon fig lemon quince mango",
    "metal": "iron copper zinc tin lead silver gold nickel cobalt steel",
    "weather": "rain snow hail fog wind storm frost cloud thunder drizzle",
}
FILLER = tuple(
    word
    for words in (
        "the a of with and some more near under very old new small large",
        "one two three four five six seven",
    )
    for word in words.split()
)
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *FILLER,
    *(word for words in SUBJECTS.values() for word in words.split()),
]
WIDTH = 32
"""Of an embedding. With less, how well a model learns is a matter of its seed."""
_SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": 48,
}
_SPECIAL = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
CONFIGS: dict[str, dict[str, object]] = {
    "bert": {"model_type": "bert", **_SIZES},
    "roberta": {"model_type": "roberta", **_SIZES, **_SPECIAL, "pad_token_id": 1},
    "distilbert": {
        "model_type": "distilbert", "vocab_size": len(VOCABULARY), "dim": WIDTH, "n_layers": 2, "n_heads": 2,
        "hidden_dim": 2 * WIDTH, "max_position_embeddings": 48,
    },
    "modernbert": {
        "model_type": "modernbert", **_SIZES, **_SPECIAL, "num_hidden_layers": 3, "global_attn_every_n_layers": 2,
        "local_attention": 8,
    },
}  # fmt: skip
"""The architectures, as their config.json says it. RoBERTa counts positions from its padding token on."""


def base_model(folder: Path, kind: str = "bert") -> Path:
    """A Hugging Face folder of a small random encoder of that architecture."""
    import warnings

    import torch  # seconds to load, and most users of this file want its rows alone
    from safetensors.torch import save_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of another project
        from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[kind]))
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
        torch.manual_seed(1)
        for module in model.modules():
            # large weights, as torch draws them: from the library's own small ones so small a model learns little
            if not isinstance(module, torch.nn.Module) or module is model or not hasattr(module, "reset_parameters"):
                continue
            module.reset_parameters()
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith("pooler.")}
        save_file(weights, folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=40)  # as MiniLM's own file does: the trainer must undo it
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def texts(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Distinct texts of 4 to 28 words, each about one of three subjects."""
    dice = random.Random(seed)
    rows = []
    for number in range(count):
        label = sorted(SUBJECTS)[number % len(SUBJECTS)]
        subject = SUBJECTS[label].split()
        words = [dice.choice(FILLER) for _ in range(dice.randint(2, 22))] + dice.choices(subject, k=dice.randint(2, 6))
        dice.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    return rows


def write_jsonl(path: Path, rows: Iterable[dict[str, object]] | Iterable[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run_folder(root: Path, **changes: object) -> RunFolder:
    """A run over 240 rows; `changes` are fields of its `RunSpec`."""
    root.mkdir(parents=True, exist_ok=True)
    spec: dict[str, object] = {
        "run": "run-1",
        "model": "topics",
        "dataset": "topics-1",
        "recipe": {"epochs": 8, "max_length": 32, "batch_size": 8, "learning_rate": 0.01, "head_learning_rate": 0.1},
        "checkpoint_steps": 5,
    }
    spec |= changes
    if "data" not in spec:
        spec["data"] = write_jsonl(root / "data.jsonl", texts(240))
    if "base_model" not in spec:
        spec["base_model"] = str(base_model(root / "base"))
    local = RunSpec.model_validate(spec)
    (root / RUN_FILE).write_text(local.model_dump_json())
    (root / SPEC_FILE).write_text(by_address(local, root).model_dump_json())
    return RunFolder(root, SystemClock())


def by_address(local: RunSpec, root: Path) -> TrainingSpec:
    """What an executor would have been given."""
    shared = local.model_dump(include=RunSpec.model_fields.keys() & TrainingSpec.model_fields.keys() - {"champion"})
    addresses = {"artifact_store": (root / "store").as_uri(), "working_uri": root.as_uri()}
    return TrainingSpec(**shared, **addresses, tenant="default", data_uri=local.data.as_uri())


def runner(folder: RunFolder) -> Runner:
    """It publishes into a store beside its run."""
    ensure_keys(folder / "keys")
    return Runner(folder, Stopping(), ArtifactStore((folder / "store").as_uri(), folder / "keys"), "default/topics/run")
