"""A whole artifact in a few kilobytes: a real graph, a real tokenizer, a real description."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from services.contracts.artifact import SPEC_FILE, TOKENIZER_FILE, ModelSpec, Precision, graph_file

LABELS = ["files", "internet", "numeric"]
WORDS = [
    "read",
    "write",
    "close",
    "open",
    "file",
    "socket",
    "server",
    "http",
    "add",
    "mean",
    "sum",
    "float",
    "the",
    "a",
    "of",
    "and",
    "to",
    "bytes",
]
WIDTH = 8
MAX_LENGTH = 16
VOCABULARY = 4 + len(WORDS)


def weights(seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {
        "table": generator.normal(size=(VOCABULARY, WIDTH)).astype(np.float32),
        "head": generator.normal(size=(WIDTH, len(LABELS))).astype(np.float32),
        "bias": generator.normal(size=(len(LABELS),)).astype(np.float32),
    }


def nodes() -> list[onnx.NodeProto]:
    """Masked mean of token vectors, brought to unit length, and a linear head on it."""
    return [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["vectors", "mask3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "second"], ["total"], keepdims=0),
        helper.make_node("ReduceL2", ["total", "second"], ["length"], keepdims=1),
        helper.make_node("Div", ["total", "length"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "head"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]


def graph(
    extra: Sequence[onnx.NodeProto] = (), *, replaced: dict[str, onnx.NodeProto] | None = None
) -> onnx.ModelProto:
    """The tiny model; `extra` nodes come first, `replaced` exchanges nodes by their output's name."""
    constants = {**weights(), "last": np.array([-1], np.int64), "second": np.array([1], np.int64)}
    made = [(replaced or {}).get(node.output[0], node) for node in nodes()]
    both = ["batch", "length"]
    return helper.make_model(
        helper.make_graph(
            [*extra, *made],
            "tiny",
            [helper.make_tensor_value_info(name, TensorProto.INT64, both) for name in ("input_ids", "attention_mask")],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)]),
                helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )


def tokenizer() -> Tokenizer:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    made = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def spec(**changed: Any) -> ModelSpec:
    known: dict[str, Any] = {
        "labels": LABELS,
        "max_length": MAX_LENGTH,
        "embedding_width": WIDTH,
        "base_model": "tiny",
        "variants": [Precision.FP32],
    }
    return ModelSpec(**{**known, **changed})


def write(folder: Path, model: onnx.ModelProto | None = None, described: ModelSpec | None = None) -> Path:
    """An artifact folder without manifest and signature."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / graph_file(Precision.FP32)).write_bytes((model or graph()).SerializeToString())
    (folder / TOKENIZER_FILE).write_text(tokenizer().to_str())
    (folder / SPEC_FILE).write_text((described or spec()).model_dump_json())
    return folder
