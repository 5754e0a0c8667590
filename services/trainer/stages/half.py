"""A graph in half precision for CUDA, and the same arithmetic on a CPU.

ONNX Runtime computes a float16 graph in float32 on a CPU and drops the casts between, so that nothing is rounded and
nothing overflows there. `rounded` puts every value of the float32 graph through float16 and back, which it must keep.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnxruntime.transformers.float16 import convert_float_to_float16, convert_np_to_float16

_SUFFIX: Final = "__before_rounding"


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in float16; inputs and outputs keep their types. `model` is used up."""
    del model.graph.value_info[:]  # the exporter's symbolic shapes break the converter, as they do the quantiser
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of each constant that is too small or too large
        half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return half


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that gives what `to_half` gives where float16 is computed in. `model` is used up."""
    del model.graph.value_info[:]
    types = _types(model)
    for tensor in _constants(model.graph):
        if tensor.data_type == TensorProto.FLOAT:
            exact = numpy_helper.to_array(tensor)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it tells of each constant that is too small or too large
                values = convert_np_to_float16(np.atleast_1d(exact)).astype(np.float32).reshape(exact.shape)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = [made for node in model.graph.node for made in _rounding(node, types)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _types(model: onnx.ModelProto) -> Mapping[str, int]:
    """The element type of each value that a node computes."""
    graph = shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}


def _constants(graph: onnx.GraphProto) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _rounding(node: onnx.NodeProto, types: Mapping[str, int]) -> Iterator[onnx.NodeProto]:
    """The node, and behind each of its float32 outputs the way through float16."""
    yield node
    if node.op_type == "Constant":
        return
    for index, name in enumerate(list(node.output)):
        if types.get(name) == TensorProto.FLOAT:
            exact, half = f"{name}{_SUFFIX}", f"{name}{_SUFFIX}_half"
            node.output[index] = exact
            yield helper.make_node("Cast", [exact], [half], to=TensorProto.FLOAT16)
            yield helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT)
