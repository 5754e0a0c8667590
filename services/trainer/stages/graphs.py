"""Runs an exported graph with ONNX Runtime.

Shapes: B texts, T tokens, N rows, C labels, D width.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from services.trainer.stages.batches import Batch

Floats = NDArray[np.float32]
MOST_AT_ONCE: Final = 4


@dataclass(frozen=True)
class Outputs:
    """In the order of the rows, whatever batches they went through in."""

    logits_NC: Floats
    embedding_ND: Floats

    @property
    def answers(self) -> NDArray[np.int64]:
        best_N: NDArray[np.int64] = self.logits_NC.argmax(1).astype(np.int64)
        return best_N


class Graph:
    """One session on the CPU, where the trainer proves what a CPU will serve; each call on the calling thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, batch: Batch) -> tuple[Floats, Floats]:
        logits_BC, embedding_BD = self._session.run(
            ["logits", "embedding"], {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT}
        )
        return logits_BC, embedding_BD

    def run_all(self, batches: Iterable[Batch]) -> Outputs:
        """Several batches at once, one a core."""
        with ThreadPoolExecutor(min(MOST_AT_ONCE, os.cpu_count() or 1)) as pool:
            return gather(list(pool.map(lambda batch: (batch, *self.run(batch)), batches)))


def gather(parts: list[tuple[Batch, Floats, Floats]]) -> Outputs:
    """Puts the rows of all batches back into their order."""
    order = np.argsort(np.concatenate([batch.rows for batch, _, _ in parts]))
    logits_NC = np.concatenate([logits for _, logits, _ in parts])[order]
    embedding_ND = np.concatenate([embedding for _, _, embedding in parts])[order]
    return Outputs(logits_NC.astype(np.float32), embedding_ND.astype(np.float32))
