"""What a graph may be, read from its bytes before ONNX Runtime sees it. Nothing here opens another file."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError

from services.contracts.artifact import ModelSpec
from services.inference.errors import ArtifactRefused

MAX_GRAPH_BYTES: Final = 2 * 1024**3 - 1
MAX_NODES: Final = 50_000
MAX_ELEMENTS: Final = 2**31
MAX_DEPTH: Final = 8

FORBIDDEN: Final = {"Loop", "Scan", "SequenceMap", "PyOp"}
"""Their running time is not bounded by the graph's size."""

CONTRIBUTED: Final = {
    *("Attention", "BiasGelu", "BiasSplitGelu", "DequantizeLinear", "DynamicQuantizeMatMul", "EmbedLayerNormalization"),
    *("FastGelu", "FusedGemm", "FusedMatMul", "Gelu", "GemmFastGelu", "GroupQueryAttention", "MatMulBnb4"),
    *("MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "MultiHeadAttention", "PackedAttention"),
    *("PackedMultiHeadAttention", "QAttention", "QEmbedLayerNormalization", "QGemm", "QLinearAdd", "QLinearMul"),
    *("QLinearSigmoid", "QLinearSoftmax", "QOrderedMatMul", "QuantizeLinear", "QuickGelu", "RemovePadding"),
    *("RestorePadding", "RotaryEmbedding", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
}
"""Operators of com.microsoft that fusion and quantisation make; all others of it are refused."""

OF_ONNX_RUNTIME: Final = {"SimplifiedLayerNormalization"}
"""Operators that ONNX Runtime adds to ONNX's own domain."""

_NOT_ONNX: Final = {
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"<": "a web page",
    b"version https://git-lfs": "a pointer to a large file",
}
_BYTES: Final = {
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.BFLOAT16: 2,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.INT16: 2,
    onnx.TensorProto.UINT16: 2,
    onnx.TensorProto.INT32: 4,
    onnx.TensorProto.UINT32: 4,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.UINT64: 8,
    onnx.TensorProto.BOOL: 1,
    onnx.TensorProto.INT4: 0.5,
    onnx.TensorProto.UINT4: 0.5,
}
_TYPED: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def check_graph(path: Path, spec: ModelSpec) -> None:
    """Raises ArtifactRefused, whose `reason_code` is one of the codes used below."""
    model = read_graph(path)
    check_operators(model)
    for tensor in tensors_of(model.graph):
        check_tensor(tensor)
    _check_inputs_and_outputs(model.graph, spec)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ArtifactRefused("invalid_graph", "its graph breaks the rules of ONNX") from error


def read_graph(path: Path) -> onnx.ModelProto:
    """The graph without any external data. Raises ArtifactRefused."""
    size = path.stat().st_size
    if size > MAX_GRAPH_BYTES:
        raise ArtifactRefused("too_large", f"its graph has {size} bytes, more than {MAX_GRAPH_BYTES}")
    with path.open("rb") as file:
        head = file.read(32)
    for magic, kind in _NOT_ONNX.items():
        if head.lstrip().startswith(magic):
            raise ArtifactRefused("not_onnx", f"its graph is {kind}, not ONNX")
    try:
        model = onnx.load_model(path, load_external_data=False)
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise ArtifactRefused("not_onnx", "its graph is not ONNX, or is cut off") from error
    if not model.graph.node or not model.opset_import:
        raise ArtifactRefused("not_onnx", "its graph is empty, or is cut off")
    return model


def _graphs(graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    if depth > MAX_DEPTH:
        raise ArtifactRefused("too_deep", f"its graph nests deeper than {MAX_DEPTH}")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner, depth + 1)


def check_operators(model: onnx.ModelProto) -> None:
    """Raises ArtifactRefused for a function of the graph's own, and for an operator that is not allowed."""
    if model.functions:
        raise ArtifactRefused("local_functions", "its graph defines functions of its own")
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    count = 0
    for graph in _graphs(model.graph):
        count += len(graph.node)
        if count > MAX_NODES:
            raise ArtifactRefused("too_many_nodes", f"its graph has more than {MAX_NODES} nodes")
        for node in graph.node:
            _check_operator(node.domain, node.op_type, opsets)


def _check_operator(domain: str, name: str, opsets: dict[str, int]) -> None:
    if name in FORBIDDEN:
        raise ArtifactRefused(
            "forbidden_operator", f"its graph uses the operator {name[:60]}, which may run without end"
        )
    if domain in ("", "ai.onnx"):
        if name in OF_ONNX_RUNTIME:
            return
        version = opsets.get("", opsets.get("ai.onnx", 0))
        try:
            onnx.defs.get_schema(name, max_inclusive_version=version, domain="")
        except onnx.defs.SchemaError as error:
            raise ArtifactRefused("unknown_operator", f"its graph uses the unknown operator {name[:60]!r}") from error
    elif domain != "com.microsoft" or name not in CONTRIBUTED:
        shown = f"{domain}.{name}"[:80]
        raise ArtifactRefused("unknown_operator", f"its graph uses the operator {shown!r}, which is not allowed")


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initialisers and constants, those of inner graphs too. Raises ArtifactRefused for sparse ones."""
    for part in _graphs(graph):
        if part.sparse_initializer:
            raise ArtifactRefused("sparse_tensors", "its graph holds sparse tensors")
        yield from part.initializer
        for node in part.node:
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                    raise ArtifactRefused("sparse_tensors", "its graph holds sparse tensors")
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or bool(tensor.external_data)


def size_in_bytes(tensor: onnx.TensorProto) -> int:
    """By its type and dimensions. Raises ArtifactRefused where they are not allowed."""
    width = _BYTES.get(tensor.data_type)
    if width is None:
        raise ArtifactRefused(
            "tensor_type", f"its graph holds a tensor of type {tensor.data_type}, which is not allowed"
        )
    elements = prod(tensor.dims)
    if any(size < 0 for size in tensor.dims) or elements > MAX_ELEMENTS:
        raise ArtifactRefused("lying_sizes", "a tensor of its graph has impossible dimensions")
    return int(-(-elements * width // 1))


def check_tensor(tensor: onnx.TensorProto) -> None:
    """Raises ArtifactRefused for one that lies in another file, or does not hold what its dimensions say."""
    if is_external(tensor):
        raise ArtifactRefused("external_data", "its graph keeps data in another file")
    size, elements, width = size_in_bytes(tensor), prod(tensor.dims), _BYTES[tensor.data_type]
    if tensor.HasField("raw_data"):
        honest = len(tensor.raw_data) == size
    else:
        packed = -(-elements // 2) if width < 1 else elements
        honest = sum(len(getattr(tensor, name)) for name in _TYPED) == packed
    if not honest:
        raise ArtifactRefused("lying_sizes", "a tensor of its graph has more or less data than its dimensions say")


def _check_inputs_and_outputs(graph: onnx.GraphProto, spec: ModelSpec) -> None:
    """The inputs and outputs that `services/contracts/artifact.py` fixes."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in constants}
    if set(inputs) != {"input_ids", "attention_mask"}:
        raise ArtifactRefused("wrong_inputs", "its graph does not take exactly input_ids and attention_mask")
    for value in inputs.values():
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if kind.elem_type != onnx.TensorProto.INT64 or len(dims) != 2 or any(dim.HasField("dim_value") for dim in dims):
            raise ArtifactRefused("wrong_inputs", f"its input {value.name} is not int64 [batch, length] of any size")
    outputs = {value.name: value.type.tensor_type for value in graph.output}
    widths = {"logits": len(spec.labels), "embedding": spec.embedding_width}
    if set(outputs) != set(widths):
        raise ArtifactRefused("wrong_outputs", "its graph does not give exactly logits and embedding")
    for name, width in widths.items():
        dims = outputs[name].shape.dim
        last = dims[-1].dim_value if dims and dims[-1].HasField("dim_value") else width
        if outputs[name].elem_type != onnx.TensorProto.FLOAT or len(dims) != 2 or last != width:
            raise ArtifactRefused("wrong_outputs", f"its output {name} is not float32 [batch, {width}]")
