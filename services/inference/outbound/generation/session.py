"""Opening the graph of a model that generates."""

from pathlib import Path

import onnxruntime as ort

from services.inference.errors import ArtifactRefused
from services.kit.core.log import logger


def open_decoder_session(path: Path, threads: int) -> ort.InferenceSession:
    """On the CPU, each step computed by `threads` threads. Raises ArtifactRefused."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        logger.warning("graph not loadable: %s", error)
        raise ArtifactRefused("not_loadable", "ONNX Runtime cannot load its graph") from error
