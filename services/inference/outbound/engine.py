"""One loaded version: an ONNX Runtime session and its tokenizer.

Shapes: B rows, T tokens of the longest row, L labels, W embedding width.

On a CPU one session serves all worker threads, each call computing on the thread that makes it (`intra_op` 1,
no spinning): a session of its own per thread would only cost memory. ONNX Runtime and `encode_batch_fast`
release the interpreter lock, `Tokenizer.encode` does not.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from tokenizers import Tokenizer

from services.contracts.artifact import SPEC_FILE, TOKENIZER_FILE, Device, ModelSpec, Precision, graph_file
from services.inference.domain.heads import ENCODER_TASKS
from services.inference.domain.scoring import Loaded, Scored, Tokenised
from services.inference.errors import ArtifactRefused, EngineFailed
from services.kit.core.log import logger

Floats: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class OrtEngine:
    """Scores one batch on the calling thread; never queues, never retries. Any number of threads may call it."""

    session: ort.InferenceSession
    tokenizer: Tokenizer
    spec: ModelSpec
    device: Device

    @classmethod
    def load(cls, folder: Path, precision: Precision, device: Device) -> "OrtEngine":
        """Opens a checked artifact's variant. Raises ArtifactRefused for one that is not meant for the device, and
        when ONNX Runtime or the tokenizer cannot."""
        spec = ModelSpec.model_validate_json((folder / SPEC_FILE).read_bytes())
        if device not in spec.meant_for(precision):
            raise ArtifactRefused("wrong_device", f"its {precision} variant is not meant for {device}")
        tokenizer = open_tokenizer(folder / TOKENIZER_FILE, spec.max_length)
        return cls(open_session(folder / graph_file(precision), device), tokenizer, spec, device)

    @property
    def loaded(self) -> Loaded:
        return Loaded(self.spec.labels, self.spec.max_length, self.device, ENCODER_TASKS)

    def warm(self, rows: int) -> None:
        """Runs batches of up to `rows` rows, short and long, so that the first request waits for nothing."""
        token = self.spec.pad_token_id
        for length in (2, self.spec.max_length // 2, self.spec.max_length):
            self.run([[token] * length])
            self.run([[token] * length] * rows)

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        """Token ids of each text, cut at the model's maximum length."""
        longest = self.spec.max_length
        return [
            Tokenised(ids := encoding.ids, len(ids) == longest and bool(encoding.overflowing))
            for encoding in self.tokenizer.encode_batch_fast(list(texts))
        ]

    def run(self, rows: Sequence[Sequence[int]]) -> list[Scored]:
        """Scores of each row of token ids, in their order. Padding goes to the right and is masked.

        Raises EngineFailed where a number is not finite, as when float16 overflows: that is no answer.
        """
        ids_BT, mask_BT = pad(rows, self.spec.pad_token_id)
        logits_BL, embedding_BW = self.session.run(
            ["logits", "embedding"], {"input_ids": ids_BT, "attention_mask": mask_BT}
        )
        if not (np.isfinite(logits_BL).all() and np.isfinite(embedding_BW).all()):
            raise EngineFailed
        scores = softmax(logits_BL).tolist()
        full_BW, half_BW = embedding_BW.astype("<f4", copy=False), embedding_BW.astype("<f2")
        return [Scored(scores[i], full_BW[i].tobytes(), half_BW[i].tobytes(), len(row)) for i, row in enumerate(rows)]


def pad(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Ids, Ids]:
    """Token ids and attention mask, both int64 [B, T]."""
    longest = max(len(row) for row in rows)
    shape = (len(rows), longest)
    if all(len(row) == longest for row in rows):
        return np.array(rows, dtype=np.int64), np.ones(shape, dtype=np.int64)
    ids_BT = np.full(shape, pad_token_id, dtype=np.int64)
    mask_BT = np.zeros(shape, dtype=np.int64)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = row
        mask_BT[i, : len(row)] = 1
    return ids_BT, mask_BT


def softmax(logits_BL: Floats) -> Floats:
    """Row-wise probabilities; stable for large logits."""
    powers_BL = np.exp(logits_BL - logits_BL.max(axis=1, keepdims=True))
    return np.asarray(powers_BL / powers_BL.sum(axis=1, keepdims=True), dtype=np.float32)


def open_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """A tokenizer that cuts at `max_length` tokens and never pads. Raises ArtifactRefused."""
    # Batches are made by our own threads; the library's pool would fight them for the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        tokenizer.enable_truncation(max_length)
    except Exception as error:  # the library raises bare Exception for every kind of bad file
        logger.warning("tokenizer not readable: %s", error)
        raise ArtifactRefused("bad_tokenizer", "its tokenizer cannot be read") from error
    tokenizer.no_padding()
    return tokenizer


def open_session(path: Path, device: Device) -> ort.InferenceSession:
    """A session on that device and no other. Raises ArtifactRefused."""
    providers = providers_for(device)
    try:
        session = ort.InferenceSession(str(path), session_options(), providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        logger.warning("graph not loadable: %s", error)
        raise ArtifactRefused("not_loadable", "ONNX Runtime cannot load its graph") from error
    if device is Device.CUDA and session.get_providers()[0] != CUDA:
        raise ArtifactRefused("no_device", "this replica was told to use CUDA, and ONNX Runtime finds no device")
    return session


def session_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def cuda_is_there() -> bool:
    """Whether this ONNX Runtime was built for CUDA and the driver finds a device."""
    if CUDA not in ort.get_available_providers():
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def device_for(choice: Literal["auto", "cpu", "cuda"]) -> Device:
    """`auto` takes CUDA where it is."""
    if choice == "auto":
        return Device.CUDA if cuda_is_there() else Device.CPU
    return Device(choice)


def providers_for(device: Device) -> list[str | tuple[str, dict[str, str]]]:
    """What to ask ONNX Runtime for, best first."""
    if device is Device.CPU or not cuda_is_there():
        return [CPU]
    # Finds the CUDA and cuDNN libraries that pip installed beside onnxruntime-gpu.
    ort.preload_dlls()
    return [(CUDA, {"arena_extend_strategy": "kSameAsRequested"}), CPU]
