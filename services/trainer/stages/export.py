"""Stage 4: the model as one ONNX graph, pooling and normalisation included, proven equal to torch.

Shapes: B texts, T tokens, N rows.
"""

import logging
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from services.contracts.artifact import Precision, graph_file
from services.trainer.domain.spec import Split, Stage
from services.trainer.errors import ParityFailed
from services.trainer.stages.base_model import find_base_model
from services.trainer.stages.batches import Batch, by_length, encode, mixed, pad
from services.trainer.stages.encoder import Classifier
from services.trainer.stages.evaluate import (
    EMBEDDING_FILE,
    LOGITS_FILE,
    SCORING_BATCH,
    Evaluated,
    load_array,
    save_array,
)
from services.trainer.stages.folder import Finished, RunFolder, hash_of
from services.trainer.stages.graphs import Graph
from services.trainer.stages.prepare import Prepared, load_rows
from services.trainer.stages.spec import RunSpec
from services.trainer.stages.train import load_trained

OPSET: Final = 20
FP32_LOGITS_FILE: Final = "fp32.logits.npy"
_OUTPUTS: Final = ("logits", "embedding")
_MIXED_BATCH: Final = 16
_MIXED_TEXTS: Final = 64
_PADDED_TEXTS: Final = 8


class Exported(Finished):
    size_bytes: int
    difference: float
    """Largest absolute difference to torch of a logit or a part of an embedding, padded batches included."""


def export(folder: RunFolder, spec: RunSpec, prepared: Prepared, evaluated: Evaluated) -> Exported:
    """Writes `fp32.onnx`. Raises ParityFailed when it answers differently from the model that was trained."""
    name = graph_file(Precision.FP32)
    write_graph(load_trained(folder, spec, prepared), folder, name)
    folder.report(Stage.EXPORT, 0.6, "graph written")
    difference = _difference(folder, spec, Graph(folder / name))
    folder.report(Stage.EXPORT, 1.0, "parity with torch measured", {"difference": difference})
    if not difference <= spec.gates.parity:
        raise ParityFailed(problem="parity", difference=difference, limit=spec.gates.parity)
    size = (folder / name).stat().st_size
    return Exported(inputs=export_inputs(spec, evaluated), size_bytes=size, difference=difference)


def export_inputs(spec: RunSpec, evaluated: Evaluated) -> str:
    return hash_of(Stage.EXPORT, evaluated.inputs, spec.gates.parity, OPSET)


def write_graph(model: Classifier, folder: RunFolder, name: str) -> None:
    """One self-contained file with free batch and length."""
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2, max=model.positions)
    # two tensors: of one tensor given twice the exporter makes one input
    ids_BT, mask_BT = (torch.ones((2, 8), dtype=torch.int64) for _ in range(2))
    free = {0: batch, 1: length}
    quiet = logging.getLogger("torch.onnx")
    quiet.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter, none of them ours
        program = torch.onnx.export(
            model,
            (ids_BT, mask_BT),
            input_names=["input_ids", "attention_mask"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _name_outputs(program.model.graph)
    program.save(folder / f"{name}.partial", external_data=False)
    folder.commit(folder / f"{name}.partial", name)


def _name_outputs(graph: Any) -> None:
    """By the exporter's own option a name could be given twice: it calls the word embeddings `embedding` too."""
    for node in graph:
        for value in node.outputs:
            value.name = f"inner_{value.name}"
    for value, name in zip(graph.outputs, _OUTPUTS, strict=True):
        value.name = name


def _difference(folder: RunFolder, spec: RunSpec, graph: Graph) -> float:
    """Over all test rows, and over some alone, in mixed batches and padded to the full length."""
    base = find_base_model(spec.base_model)
    length = spec.recipe.max_length
    ids = encode(base.tokenizer(), [row.text for row in load_rows(folder, Split.TEST)], length)
    logits_NC, embedding_ND = load_array(folder, LOGITS_FILE), load_array(folder, EMBEDDING_FILE)
    outputs = graph.run_all(by_length(ids, SCORING_BATCH, base.pad_token_id))
    save_array(folder, FP32_LOGITS_FILE, outputs.logits_NC)
    worst = max(
        float(np.abs(outputs.logits_NC - logits_NC).max()), float(np.abs(outputs.embedding_ND - embedding_ND).max())
    )
    for batch in _hard_batches(ids, base.pad_token_id, length):
        rows = list(batch.rows)
        found_BC, found_BD = graph.run(batch)
        worst = max(worst, float(np.abs(found_BC - logits_NC[rows]).max()))
        worst = max(worst, float(np.abs(found_BD - embedding_ND[rows]).max()))
    return worst


def _hard_batches(ids: Sequence[Sequence[int]], pad_id: int, length: int) -> list[Batch]:
    """The shortest texts alone, and the same padded as far as can be: where a lost mask shows most."""
    shortest = sorted(range(len(ids)), key=lambda row: (len(ids[row]), row))[:_PADDED_TEXTS]
    alone = [pad(ids, [row], pad_id) for row in shortest[:2]]
    return [*alone, pad(ids, shortest, pad_id, length), *mixed(ids[:_MIXED_TEXTS], _MIXED_BATCH, pad_id)]
