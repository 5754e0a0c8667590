"""Checks one artifact variant in a process of its own, with limits on memory, time, files and output.

`python -m services.inference.outbound.checking FOLDER PRECISION ROWS` prints `started`, then one line of JSON,
`{"ok": true}` or `{"ok": false, "code": ..., "reason": ...}`, and exits 0 either way.
Hash and signature have been checked before. The order: spec, graph (`graphs.py`), tokenizer, load, and a run of
padded batches as large as serving makes them; of a model that generates, prompts in pieces and answers in company.

Shapes: B rows, R sample rows, T tokens of the longest row, L labels, W embedding width.
"""

import ctypes
import json
import re
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError

from services.contracts.artifact import (
    SPEC_FILE,
    TOKENIZER_FILE,
    AnySpec,
    DecoderSpec,
    Device,
    ModelSpec,
    Precision,
    graph_file,
    parse_spec,
    weights_file,
)
from services.inference.errors import ArtifactRefused
from services.inference.outbound.engine import Floats, OrtEngine, open_session, open_tokenizer, pad
from services.inference.outbound.generation.checking import check_decoder
from services.inference.outbound.generation.graphs import check_decoder_graph
from services.inference.outbound.graphs import check_graph

MEMORY_BYTES: Final = 1024**3
MEMORY_PER_GRAPH_BYTE: Final = 6
CPU_SECONDS: Final = 120
TOKENIZER_BYTES: Final = 64 * 1024**2
SPEC_BYTES: Final = 1024**2

# A padded row must come out as it does alone. int8 quantises activations with one scale a batch, so its rows
# move a little with their neighbours; a dropped mask takes the cosine to 0.5-0.75.
MASK_COSINE: Final = {Precision.FP32: 0.9999, Precision.FP16: 0.999, Precision.INT8: 0.9, Precision.INT4: 0.9}
UNIT_LENGTH_TOLERANCE: Final = 0.01

SAMPLES: Final = (
    "Reads.",
    "Returns the number of bytes written to the stream.",
    "Starts a thread that waits until every message of the queue has been handled, then closes the connection.",
)


def limit_process(graph_bytes: int) -> None:
    """Bounds what the rest of this process may use, and ties its life to its parent's."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, prctl(2)
    memory = _address_space() + MEMORY_BYTES + MEMORY_PER_GRAPH_BYTE * graph_bytes
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def graph_files(folder: Path, precision: Precision) -> list[Path]:
    """The variant's graph, and its weights where they lie beside it."""
    paths = (folder / graph_file(precision), folder / weights_file(precision))
    return [path for path in paths if path.is_file()]


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def check(folder: Path, precision: Precision, rows: int) -> None:
    """Raises ArtifactRefused when the variant must not be served."""
    spec = read_spec(folder / SPEC_FILE)
    graph = folder / graph_file(precision)
    if precision not in spec.variants or not graph.is_file():
        raise ArtifactRefused("missing_variant", f"it has no {precision} variant")
    tokenizer_file = folder / TOKENIZER_FILE
    if not tokenizer_file.is_file() or tokenizer_file.stat().st_size > TOKENIZER_BYTES:
        raise ArtifactRefused("bad_tokenizer", "its tokenizer is missing, or too large")
    try:
        if isinstance(spec, DecoderSpec):
            check_decoder_graph(graph)
            check_decoder(folder, spec, precision)
        else:
            check_graph(graph, spec)
            tokenizer = open_tokenizer(tokenizer_file, spec.max_length)
            session = open_session(graph, Device.CPU)
            check_answers(OrtEngine(session, tokenizer, spec, Device.CPU), precision, rows)
    except ArtifactRefused as refused:
        if re.search(r"alloc|memory", str(refused.__cause__), re.IGNORECASE):
            raise ArtifactRefused("too_much_memory", "it needs more memory than its size allows") from refused
        raise


def read_spec(path: Path) -> AnySpec:
    """Raises ArtifactRefused."""
    try:
        if path.stat().st_size > SPEC_BYTES:
            raise ArtifactRefused("bad_spec", "its description is too large")
        spec = parse_spec(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactRefused("bad_spec", "its description is missing, or cannot be read") from error
    if isinstance(spec, ModelSpec) and len(set(spec.labels)) < len(spec.labels):
        raise ArtifactRefused("bad_spec", "its description names a label twice")
    return spec


def check_answers(engine: OrtEngine, precision: Precision, rows: int) -> None:
    """Runs single rows, the same rows padded, the last token of the vocabulary, and the largest batch."""
    texts = [text.ids for text in engine.tokenise(SAMPLES)]
    if any(not row or len(row) > engine.spec.max_length for row in texts):
        raise ArtifactRefused("bad_tokenizer", "its tokenizer gives no tokens, or more than the model reads")
    alone_RW = np.concatenate([_run(engine, [row])[1] for row in texts])
    together_RW = _run(engine, texts)[1]
    cosine = float((alone_RW * together_RW).sum(axis=1).min())
    if cosine < MASK_COSINE[precision]:
        raise ArtifactRefused("mask_ignored", f"padding changes its answers (cosine {cosine:.3f})")
    last = engine.tokenizer.get_vocab_size(with_added_tokens=True) - 1
    _run(engine, [[last] * engine.spec.max_length] * rows)


def _run(engine: OrtEngine, rows: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
    """Logits and embedding of the rows, both found to be what the contract says."""
    ids_BT, mask_BT = pad(rows, engine.spec.pad_token_id)
    try:
        logits_BL, embedding_BW = engine.session.run(
            ["logits", "embedding"], {"input_ids": ids_BT, "attention_mask": mask_BT}
        )
    except Exception as error:
        raise ArtifactRefused("fails_to_run", "its graph fails on an ordinary batch") from error
    spec = engine.spec
    if logits_BL.shape != (len(rows), len(spec.labels)) or embedding_BW.shape != (len(rows), spec.embedding_width):
        raise ArtifactRefused("wrong_outputs", "its outputs are not of the shape that its description says")
    if not (np.isfinite(logits_BL).all() and np.isfinite(embedding_BW).all()):
        raise ArtifactRefused("not_finite", "its outputs are not finite numbers")
    if float(np.abs(np.linalg.norm(embedding_BW, axis=1) - 1).max()) > UNIT_LENGTH_TOLERANCE:
        raise ArtifactRefused("not_unit_length", "its embedding is not of unit length")
    return logits_BL, embedding_BW


def main(arguments: Sequence[str]) -> int:
    folder, precision, rows = Path(arguments[0]), Precision(arguments[1]), int(arguments[2])
    # From here on a sudden end is the artifact's doing.
    print("started", flush=True)
    limit_process(sum(path.stat().st_size for path in graph_files(folder, precision)))
    answer: dict[str, bool | str] = {"ok": True}
    try:
        check(folder, precision, rows)
    except ArtifactRefused as refused:
        answer = {"ok": False, "code": refused.reason_code, "reason": refused.reason}
    except MemoryError:
        answer = {"ok": False, "code": "too_much_memory", "reason": "it needs more memory than its size allows"}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
