"""What the graph of a model that generates may be, read from its bytes before ONNX Runtime sees it."""

from pathlib import Path
from typing import Final

import onnx

from services.inference.errors import ArtifactRefused
from services.inference.outbound.graphs import (
    check_operators,
    check_tensor,
    is_external,
    read_graph,
    size_in_bytes,
    tensors_of,
)

ENTRIES: Final = {"location", "offset", "length"}


def check_decoder_graph(path: Path) -> None:
    """Its weights lie in the one file beside it, each within the file's bounds. Raises ArtifactRefused.

    Whether inputs and outputs are those of a decoder is seen when it is opened; whether it answers, when it is run.
    """
    model = read_graph(path)
    check_operators(model)
    weights = path.with_name(f"{path.name}.data")
    file_size = weights.stat().st_size if weights.is_file() else 0
    for tensor in tensors_of(model.graph):
        if is_external(tensor):
            _check_external(tensor, weights.name, file_size)
        else:
            check_tensor(tensor)


def _check_external(tensor: onnx.TensorProto, name: str, file_size: int) -> None:
    """ONNX Runtime would follow any path that a graph names."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if entries.get("location") != name or not entries.keys() <= ENTRIES:
        raise ArtifactRefused("external_data", f"its graph keeps data in another file than {name}")
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
    except ValueError as error:
        raise ArtifactRefused("lying_sizes", "a tensor of its graph has impossible bounds") from error
    if length != size_in_bytes(tensor) or not 0 <= offset <= file_size - length:
        raise ArtifactRefused("lying_sizes", "a tensor of its graph has more or less data than its dimensions say")
