"""A decoder as ONNX graphs, one a variant, by the builder of onnxruntime-genai in a child process of its own.

The builder knows the architectures by their configuration, fuses attention into GroupQueryAttention over a cache that
the caller owns, and quantises weights in blocks. Source: onnxruntime-genai 0.18, `onnxruntime_genai/models/builder.py`.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import onnx

from services.contracts.artifact import (
    SPEC_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    DecoderSpec,
    Device,
    Precision,
    graph_file,
    weights_file,
)
from services.trainer.errors import ExportFailed

log: Final = logging.getLogger("millrace.run")
BUILDER: Final = "onnxruntime_genai.models.builder"
BUILT: Final = (Precision.FP32, Precision.INT8, Precision.INT4)
"""For a CPU. float16 crawls there."""
BUILD_SECONDS: Final = 3_600
ERROR_CHARACTERS: Final = 500
CONFIG_FILE: Final = "genai_config.json"
TOKENIZER_CONFIG_FILE: Final = "tokenizer_config.json"
GENERATION_FILE: Final = "generation_config.json"
_GRAPH: Final = "model.onnx"
_SPECIAL: Final = ("bos_token", "eos_token", "pad_token", "unk_token")


def export_decoder(source: Path, target: Path, base_model: str, precisions: Collection[Precision]) -> DecoderSpec:
    """Makes the artifact's files in `target` from a folder of transformers with safetensors; neither is signed.

    Raises ExportFailed, with the builder's last words, where it does not know the architecture.
    """
    target.mkdir(parents=True, exist_ok=True)
    spec: DecoderSpec | None = None
    for precision in precisions:
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            built = Path(scratch) / "built"
            _build(source, built, precision)
            _take_graph(built, target, precision)
            if spec is None:
                shutil.copyfile(built / TOKENIZER_FILE, target / TOKENIZER_FILE)
                if (built / TEMPLATE_FILE).is_file():
                    shutil.copyfile(built / TEMPLATE_FILE, target / TEMPLATE_FILE)
                spec = _describe(source, built, base_model, precisions)
    if spec is None:
        raise ValueError("no variant is asked for")
    (target / SPEC_FILE).write_text(spec.model_dump_json(indent=1))
    return spec


def _build(source: Path, built: Path, precision: Precision) -> None:
    command = [sys.executable, "-m", BUILDER, "-i", str(source), "-o", str(built), "-p", str(precision)]
    command += ["-e", "cpu", "-c", str(built.parent / "cache"), "--extra_options", "prune_lm_head=true"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExportFailed(precision=precision, reason=f"it did not end within {BUILD_SECONDS} seconds") from error
    if ended.returncode != 0 or not (built / _GRAPH).is_file():
        log.error("the builder ended with %s: %s", ended.returncode, ended.stderr[-10_000:])
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        raise ExportFailed(precision=precision, reason=(lines[-1] if lines else "no message")[:ERROR_CHARACTERS])


def _take_graph(built: Path, target: Path, precision: Precision) -> None:
    """Under the artifact's names, which the graph has to know its weights by."""
    model = onnx.load_model(built / _GRAPH, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = weights_file(precision)
    onnx.save_model(model, target / graph_file(precision))
    weights = built / f"{_GRAPH}.data"
    if weights.is_file():
        shutil.move(weights, target / weights_file(precision))


def _describe(source: Path, built: Path, base_model: str, precisions: Collection[Precision]) -> DecoderSpec:
    config = json.loads((built / CONFIG_FILE).read_bytes())["model"]
    return DecoderSpec(
        context_length=config["context_length"],
        vocabulary_size=config["vocab_size"],
        head_size=config["decoder"]["head_size"],
        end_token_ids=_end_tokens(source, config),
        special_tokens=_special_tokens(source),
        base_model=base_model,
        variants=list(precisions),
        devices={precision: [Device.CPU] for precision in precisions},
    )


def _end_tokens(source: Path, config: Mapping[str, Any]) -> list[int]:
    """Those of the generation's configuration too: a chat model may end a turn with another token than a text."""
    path = source / GENERATION_FILE
    others = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
    ends = [end if isinstance(end, list) else [end] for end in (config["eos_token_id"], others) if end is not None]
    return sorted({int(token) for end in ends for token in end})


def _special_tokens(source: Path) -> dict[str, str]:
    path = source / TOKENIZER_CONFIG_FILE
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    tokens = {name: config[name] for name in _SPECIAL if config.get(name)}
    return {name: token["content"] if isinstance(token, dict) else str(token) for name, token in tokens.items()}
