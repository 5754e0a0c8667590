"""A decoder graph and its key-value cache: one buffer a layer, in which each sequence has a row.

Shapes: B sequences that decode together (rows 0 to B-1), T new tokens of one sequence, S tokens that a row holds,
H key-value heads, W their width, V vocabulary.

The graph's GroupQueryAttention honours each row's own length (the sums of the attention mask), and appends where the
past ends if past and present are one buffer. So sequences of any lengths take a step together without padding, and a
prompt may be computed in pieces. A piece of more than one token with a past must be computed alone (ONNX Runtime 1.31).
"""

import mmap
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from services.inference.errors import ArtifactRefused

Logits: TypeAlias = npt.NDArray[np.float32]
Cache: TypeAlias = npt.NDArray[Any]

IDS: Final = "input_ids"
MASK: Final = "attention_mask"
POSITIONS: Final = "position_ids"
LOGITS: Final = "logits"
_PAST: Final = re.compile(r"past_key_values\.(?P<layer>\d+)\.(?P<part>key|value)")
_ELEMENTS: Final[Mapping[str, type[np.floating[Any]]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True, slots=True)
class _Layer:
    """A buffer [rows, H, S, W], and the names by which the graph reads and writes it."""

    reads: str
    writes: str
    buffer_RHSW: Cache


class Decoder:
    """Computes on the calling thread, for one thread at a time. Rows are numbered from 0.

    The logits that a call gives are overwritten by the next one.
    """

    def __init__(self, session: ort.InferenceSession, *, rows: int, length: int, head_size: int) -> None:
        """`length` is the most tokens of prompt and answer, `head_size` the width of a key.

        Memory is taken as the rows fill. Raises ArtifactRefused where the graph is not one of the builder's.
        """
        self._session = session
        self._binding = session.io_binding()
        self._bound: tuple[int, int] | None = None
        self._takes_positions = any(one.name == POSITIONS for one in session.get_inputs())
        self._layers = [
            _layer(one, (rows, length, head_size)) for one in session.get_inputs() if _PAST.fullmatch(one.name)
        ]
        self._logits_RV = _logits_buffer(session, rows)
        if not self._layers:
            raise ArtifactRefused("wrong_inputs", "its graph keeps no keys and values")
        self.rows, self.length = rows, length

    @property
    def bytes_per_token(self) -> int:
        return sum(layer.buffer_RHSW[0].nbytes // self.length for layer in self._layers)

    def prefill(self, row: int, ids: Sequence[int], start: int) -> Logits:
        """Computes the next tokens of a prompt of which the row holds `start`; logits [V] after the last of them."""
        total = start + len(ids)
        ids_BT = np.array([ids], dtype=np.int64)
        mask_BS = np.ones((1, total), dtype=np.int64)
        positions_BT = np.arange(start, total, dtype=np.int64)[None, :]
        logits_V: Logits = self._run(row, ids_BT, mask_BS, positions_BT)[0]
        return logits_V

    def step(self, ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        """Computes one token of each of rows 0 to B-1, which hold `lengths` tokens before it; logits [B, V]."""
        held_B = np.array(lengths, dtype=np.int64)
        mask_BS = (np.arange(held_B.max() + 1) <= held_B[:, None]).astype(np.int64)
        return self._run(0, np.array(ids, dtype=np.int64)[:, None], mask_BS, held_B[:, None])

    def move(self, source: int, target: int, length: int) -> None:
        """The sequence of one row goes on in another."""
        for layer in self._layers:
            layer.buffer_RHSW[target, :, :length] = layer.buffer_RHSW[source, :, :length]

    def copy_out(self, row: int, length: int) -> list[Cache]:
        """Keys and values of the row's first `length` tokens, an array [H, length, W] a buffer."""
        return [layer.buffer_RHSW[row, :, :length].copy() for layer in self._layers]

    def copy_in(self, row: int, saved: Sequence[Cache], length: int) -> None:
        """The first `length` tokens of what `copy_out` gave."""
        for layer, saved_HSW in zip(self._layers, saved, strict=True):
            layer.buffer_RHSW[row, :, :length] = saved_HSW[:, :length]

    def _run(self, row: int, ids_BT: Any, mask_BS: Any, positions_BT: Any) -> Logits:
        count = len(ids_BT)
        if self._bound != (row, count):
            self._bind_rows(row, count)
            self._bound = (row, count)
        self._bind_input(IDS, ids_BT)
        self._bind_input(MASK, mask_BS)
        if self._takes_positions:
            self._bind_input(POSITIONS, positions_BT)
        self._session.run_with_iobinding(self._binding)
        return self._logits_RV[:count].astype(np.float32, copy=False)

    def _bind_rows(self, row: int, count: int) -> None:
        """Rows `row` to `row + count - 1` of each buffer, as past and as present."""
        binding = self._binding
        for layer in self._layers:
            part_BHSW = layer.buffer_RHSW[row : row + count]
            where = ("cpu", 0, part_BHSW.dtype.type, part_BHSW.shape, part_BHSW.ctypes.data)
            binding.bind_input(layer.reads, *where)
            binding.bind_output(layer.writes, *where)
        logits_BV = self._logits_RV[:count]
        shape = (count, 1, logits_BV.shape[1])
        binding.bind_output(LOGITS, "cpu", 0, logits_BV.dtype.type, shape, logits_BV.ctypes.data)

    def _bind_input(self, name: str, values: Any) -> None:
        self._binding.bind_cpu_input(name, values)


def _layer(value: Any, sizes: tuple[int, int, int]) -> _Layer:
    match = _PAST.fullmatch(value.name)
    element = _ELEMENTS.get(value.type)
    if match is None or element is None or len(value.shape) != 4 or not isinstance(value.shape[1], int):
        raise ArtifactRefused("wrong_inputs", f"its input {value.name[:60]} is no cache of keys or values")
    rows, length, width = sizes
    return _Layer(
        reads=value.name,
        writes=f"present.{match['layer']}.{match['part']}",
        buffer_RHSW=_zeros((rows, value.shape[1], length, width), element),
    )


def _zeros(shape: tuple[int, ...], element: type[np.floating[Any]]) -> Cache:
    """Memory that is taken page by page as it is written to.

    With huge pages the first token of each row would have two megabytes of every buffer zeroed: 160 ms for the 60
    buffers of SmolLM2.
    """
    pages = mmap.mmap(-1, prod(shape) * np.dtype(element).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype=element).reshape(shape)


def _logits_buffer(session: ort.InferenceSession, rows: int) -> Cache:
    logits = next((one for one in session.get_outputs() if one.name == LOGITS), None)
    if logits is None or logits.type not in _ELEMENTS or len(logits.shape) != 3 or logits.shape[1] != 1:
        raise ArtifactRefused("wrong_outputs", "its graph does not give the logits of the last position alone")
    return np.zeros((rows, logits.shape[2]), dtype=_ELEMENTS[logits.type])
