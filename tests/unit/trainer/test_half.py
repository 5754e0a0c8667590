"""The rounding graph gives on a CPU what float16 arithmetic gives, overflow included; ONNX Runtime's own does not."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from services.trainer.stages.half import rounded, to_half

X = np.array([[1, 2.0001, 0.33333, 3]], np.float32)


def graph(factor: float) -> onnx.ModelProto:
    """x times factor, and back: in real numbers, x."""
    constants = [numpy_helper.from_array(np.array(factor, np.float32), "factor")]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["large"]), helper.make_node("Div", ["large", "factor"], ["y"])]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4])] for name in ("x", "y")]
    made = helper.make_graph(nodes, "g", *ends, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {"x": X})[0]
    return answer


def test_every_value_is_rounded_to_what_half_precision_holds() -> None:
    expected = (X * np.float32(3)).astype(np.float16).astype(np.float32) / np.float32(3)
    np.testing.assert_array_equal(run(rounded(graph(3))), expected.astype(np.float16).astype(np.float32))
    assert not np.array_equal(run(rounded(graph(3))), X)


def test_what_is_too_large_for_half_precision_becomes_infinite() -> None:
    np.testing.assert_array_equal(np.isinf(run(rounded(graph(60_000)))), [[False, True, False, True]])
    np.testing.assert_allclose(run(to_half(graph(60_000))), X, atol=1e-3)  # computed in float32 here: it says nothing


@pytest.mark.parametrize(("constant", "held"), [(1e9, 65_504.0), (1e-30, 5.96e-8)])
def test_a_constant_out_of_range_becomes_the_nearest_that_half_precision_holds(constant: float, held: float) -> None:
    for model in (rounded(graph(constant)), to_half(graph(constant))):
        (factor,) = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
        assert float(factor) == pytest.approx(held, rel=0.01)
