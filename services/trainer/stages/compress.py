"""Stage 5: the same graph in int8, and the proof that it may be served.

Dynamic quantisation, per channel, of matrix products and embeddings. It sees the graph before any fusion:
on fused attention it would lose the mask without a word.
"""

import logging
from typing import Final

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from services.contracts.artifact import Precision, graph_file
from services.contracts.training import VariantReport
from services.kit.core.clock import Clock
from services.trainer.domain.spec import Gates, RunSpec, Split, Stage
from services.trainer.stages.base_model import find_base_model
from services.trainer.stages.batches import by_length, encode, pad
from services.trainer.stages.evaluate import (
    LOGITS_FILE,
    SCORING_BATCH,
    load_array,
    save_array,
)
from services.trainer.stages.export import FP32_LOGITS_FILE, Exported
from services.trainer.stages.folder import Finished, RunFolder, hash_of
from services.trainer.stages.graphs import Graph
from services.trainer.stages.prepare import Prepared, load_rows
from services.trainer.stages.scores import label_numbers, macro_f1

INT8_LOGITS_FILE: Final = "int8.logits.npy"
_QUANTISED: Final = ["MatMul", "Gather"]
_TIMED_TEXTS: Final = 40


class Compressed(Finished):
    variants: list[VariantReport]

    def served(self) -> VariantReport:
        """The smallest variant that passed; fp32 always has."""
        return min((variant for variant in self.variants if variant.passed), key=lambda variant: variant.size_bytes)


def compress(folder: RunFolder, spec: RunSpec, prepared: Prepared, exported: Exported) -> Compressed:
    """Writes `int8.onnx` and reports both variants. A variant that fails its gate is reported, never an error."""
    fp32_name, int8_name = graph_file(Precision.FP32), graph_file(Precision.INT8)
    quantise(folder, fp32_name, int8_name)
    folder.tell(Stage.COMPRESS, 0.3, "int8 graph written")
    base = find_base_model(spec.base_model)
    rows = load_rows(folder, Split.TEST)
    ids = encode(base.tokenizer(), [row.text for row in rows], spec.recipe.max_length)
    truth_N = label_numbers(rows, prepared.labels)
    torch_NC, fp32_NC = load_array(folder, LOGITS_FILE), load_array(folder, FP32_LOGITS_FILE)
    int8_NC = Graph(folder / int8_name).run_all(by_length(ids, SCORING_BATCH, base.pad_token_id)).logits_NC
    save_array(folder, INT8_LOGITS_FILE, int8_NC)
    fp32_N, int8_N = fp32_NC.argmax(1), int8_NC.argmax(1)
    fp32 = VariantReport(
        precision=Precision.FP32,
        size_bytes=exported.size_bytes,
        macro_f1=macro_f1(truth_N, fp32_N),
        agreement=1.0,
        max_difference=exported.difference,
        speedup=1.0,
        passed=True,
    )
    int8 = VariantReport(
        precision=Precision.INT8,
        size_bytes=(folder / int8_name).stat().st_size,
        macro_f1=macro_f1(truth_N, int8_N),
        agreement=float((fp32_N == int8_N).mean()),
        max_difference=float(np.abs(int8_NC - torch_NC).max()),
        speedup=_speedup(folder, ids, base.pad_token_id),
        passed=True,
    )
    reason = refusal_of(int8, fp32, spec.gates)
    int8 = int8.model_copy(update={"passed": not reason, "reason": reason})
    told = {"agreement": int8.agreement, "macro_f1": int8.macro_f1, "speedup": int8.speedup}
    folder.tell(Stage.COMPRESS, 1.0, f"int8 refused: {reason}" if reason else "int8 passed", told)
    return Compressed(inputs=compress_inputs(spec, exported), variants=[fp32, int8])


def compress_inputs(spec: RunSpec, exported: Exported) -> str:
    return hash_of(Stage.COMPRESS, exported.inputs, spec.gates)


def quantise(folder: RunFolder, source: str, target: str) -> None:
    """Weights in int8 by channel; activations are scaled as they come."""
    model = onnx.load(str(folder / source))
    del model.graph.value_info[:]  # the exporter's symbolic shapes break the quantiser
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preparation that this graph does not need
    try:
        quantize_dynamic(
            model,
            str(folder / f"{target}.partial"),
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=_QUANTISED,
        )
    finally:
        root.setLevel(level)
    folder.commit(folder / f"{target}.partial", target)


def refusal_of(variant: VariantReport, fp32: VariantReport, gates: Gates) -> str:
    """Why the variant may not be served in fp32's place; empty when it may."""
    if variant.agreement < gates.int8_agreement:
        return f"agrees with fp32 on {variant.agreement:.3f} of the test rows, less than {gates.int8_agreement}"
    if variant.macro_f1 < fp32.macro_f1 - gates.int8_f1_loss:
        return f"macro F1 {variant.macro_f1:.3f} is more than {gates.int8_f1_loss} below fp32's {fp32.macro_f1:.3f}"
    if variant.speedup < gates.int8_speedup:
        return f"{variant.speedup:.2f} times as fast as fp32, less than {gates.int8_speedup}"
    return ""


def _speedup(folder: RunFolder, ids: list[list[int]], pad_id: int) -> float:
    """fp32 time over int8 time: one text at a time on one thread, taking turns so that noise hits both."""
    graphs = [Graph(folder / graph_file(precision)) for precision in (Precision.FP32, Precision.INT8)]
    rows = range(0, len(ids), max(1, len(ids) // _TIMED_TEXTS))
    seconds = [[_seconds(graph, ids[row], pad_id, folder.clock) for row in rows] for graph in graphs]
    return float(np.median(seconds[0]) / np.median(seconds[1]))


def _seconds(graph: Graph, text: list[int], pad_id: int, clock: Clock) -> float:
    batch = pad([text], [0], pad_id)
    started = clock.monotonic()
    graph.run(batch)
    return clock.monotonic() - started
