"""Stage 5: the same graph in other precisions, each for its devices, and the proof that it may be served.

int8, for CPUs: dynamic quantisation, per channel, of matrix products and embeddings. It sees the graph before any
fusion: on fused attention it would lose the mask without a word. fp16, for CUDA: see `half.py`.
"""

import logging
from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from services.contracts.artifact import Device, Precision, best_variant, devices_of, graph_file
from services.contracts.training import VariantReport
from services.kit.core.clock import Clock
from services.trainer.domain.spec import Gates, Split, Stage
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
from services.trainer.stages.half import rounded, to_half
from services.trainer.stages.prepare import Prepared, load_rows
from services.trainer.stages.scores import Labels, label_numbers, macro_f1
from services.trainer.stages.spec import RunSpec

ROUNDED_FILE: Final = "fp16.rounded.onnx"
"""fp32 that rounds as fp16 does; stays in the run folder."""
LOGITS_FILES: Final[Mapping[Precision, str]] = {
    Precision.FP32: FP32_LOGITS_FILE,
    Precision.FP16: "fp16.logits.npy",
    Precision.INT8: "int8.logits.npy",
}
_QUANTISED: Final = ["MatMul", "Gather"]
_TIMED_TEXTS: Final = 40
_NO_NUMBER: Final = float(np.finfo(np.float32).max)
"""The difference to what is not finite: a report is JSON, which has no infinity."""


class Compressed(Finished):
    variants: list[VariantReport]

    def passed(self) -> list[Precision]:
        return [variant.precision for variant in self.variants if variant.passed]

    def served(self) -> VariantReport:
        """What a CPU serves of what passed; fp32 always has."""
        best = best_variant(self.passed(), Device.CPU)
        return next(variant for variant in self.variants if variant.precision is best)


def proof_graph(precision: Precision) -> str:
    """The file that gives on the trainer's CPU what the variant gives on its own device."""
    return ROUNDED_FILE if precision is Precision.FP16 else graph_file(precision)


def compress(folder: RunFolder, spec: RunSpec, prepared: Prepared, exported: Exported) -> Compressed:
    """Writes a graph a precision and reports on each. A variant that fails its gate is reported, never an error."""
    base = find_base_model(spec.base_model)
    rows = load_rows(folder, Split.TEST)
    ids = encode(base.tokenizer(), [row.text for row in rows], spec.recipe.max_length)
    truth_N = label_numbers(rows, prepared.labels)
    variants = [_fp32(folder, truth_N, exported)]
    for precision in (Precision.INT8, *([Precision.FP16] if spec.fp16 else [])):
        _write(folder, precision)
        logits_NC = Graph(folder / proof_graph(precision)).run_all(by_length(ids, SCORING_BATCH, base.pad_token_id))
        save_array(folder, LOGITS_FILES[precision], logits_NC.logits_NC)
        speedup = _speedup(folder, precision, ids, base.pad_token_id)
        made = _reported(folder, precision, truth_N, speedup)
        reason = refusal_of(made, variants[0], spec.gates)
        variants.append(made.model_copy(update={"passed": not reason, "reason": reason}))
        _report(folder, variants[-1], len(variants) / (3 if spec.fp16 else 2))
    return Compressed(inputs=compress_inputs(spec, exported), variants=variants)


def compress_inputs(spec: RunSpec, exported: Exported) -> str:
    return hash_of(Stage.COMPRESS, exported.inputs, spec.gates, spec.fp16)


def _fp32(folder: RunFolder, truth_N: Labels, exported: Exported) -> VariantReport:
    return VariantReport(
        precision=Precision.FP32,
        size_bytes=exported.size_bytes,
        macro_f1=macro_f1(truth_N, load_array(folder, FP32_LOGITS_FILE).argmax(1)),
        agreement=1.0,
        max_difference=exported.difference,
        speedup=1.0,
        passed=True,
    )


def _write(folder: RunFolder, precision: Precision) -> None:
    source, target = graph_file(Precision.FP32), graph_file(precision)
    if precision is Precision.INT8:
        quantise(folder, source, target)
        return
    for name, change in ((target, to_half), (ROUNDED_FILE, rounded)):
        onnx.save(change(onnx.load(str(folder / source))), str(folder / f"{name}.partial"))
        folder.commit(folder / f"{name}.partial", name)


def _reported(folder: RunFolder, precision: Precision, truth_N: Labels, speedup: float) -> VariantReport:
    torch_NC, fp32_NC = load_array(folder, LOGITS_FILE), load_array(folder, FP32_LOGITS_FILE)
    logits_NC = load_array(folder, LOGITS_FILES[precision])
    return VariantReport(
        precision=precision,
        size_bytes=(folder / graph_file(precision)).stat().st_size,
        macro_f1=macro_f1(truth_N, logits_NC.argmax(1)),
        agreement=agreement(fp32_NC, logits_NC),
        max_difference=difference(torch_NC, logits_NC),
        speedup=speedup,
        passed=True,
    )


def agreement(fp32_NC: NDArray[np.float32], logits_NC: NDArray[np.float32]) -> float:
    """The share of rows answered alike; a row that is not finite is no answer."""
    alike_N = (fp32_NC.argmax(1) == logits_NC.argmax(1)) & np.isfinite(logits_NC).all(1)
    return float(alike_N.mean())


def difference(torch_NC: NDArray[np.float32], logits_NC: NDArray[np.float32]) -> float:
    """The largest of a logit; that to what is not finite is the largest number there is."""
    return float(np.nan_to_num(np.abs(logits_NC - torch_NC), nan=_NO_NUMBER, posinf=_NO_NUMBER).max())


def _report(folder: RunFolder, variant: VariantReport, fraction: float) -> None:
    numbers = {"agreement": variant.agreement, "macro_f1": variant.macro_f1, "speedup": variant.speedup}
    outcome = "passed" if variant.passed else f"refused: {variant.reason}"
    folder.report(Stage.COMPRESS, fraction, f"{variant.precision} {outcome}", numbers)


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
    """Why the variant may not be served in fp32's place; empty when it may. Its speed counts where it was measured."""
    half = variant.precision is Precision.FP16
    least, loss = (gates.fp16_agreement, gates.fp16_f1_loss) if half else (gates.int8_agreement, gates.int8_f1_loss)
    if variant.agreement < least:
        return f"agrees with fp32 on {variant.agreement:.3f} of the test rows, less than {least}"
    if variant.macro_f1 < fp32.macro_f1 - loss:
        return f"macro F1 {variant.macro_f1:.3f} is more than {loss} below fp32's {fp32.macro_f1:.3f}"
    if Device.CPU in devices_of(variant.precision) and variant.speedup < gates.int8_speedup:
        return f"{variant.speedup:.2f} times as fast as fp32, less than {gates.int8_speedup}"
    return ""


def _speedup(folder: RunFolder, precision: Precision, ids: list[list[int]], pad_id: int) -> float:
    """fp32 time over its time: one text at a time on one thread, taking turns so that noise hits both.

    0 where it is not meant for a CPU.
    """
    if Device.CPU not in devices_of(precision):
        return 0.0
    graphs = [Graph(folder / graph_file(one)) for one in (Precision.FP32, precision)]
    rows = range(0, len(ids), max(1, len(ids) // _TIMED_TEXTS))
    seconds = [[_seconds(graph, ids[row], pad_id, folder.clock) for row in rows] for graph in graphs]
    return float(np.median(seconds[0]) / np.median(seconds[1]))


def _seconds(graph: Graph, text: list[int], pad_id: int, clock: Clock) -> float:
    batch = pad([text], [0], pad_id)
    started = clock.monotonic()
    graph.run(batch)
    return clock.monotonic() - started
