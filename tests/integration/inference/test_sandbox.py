"""The checks in their own process: what a hostile artifact cannot do to the replica."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from services.contracts.artifact import Precision
from services.inference.errors import ArtifactRefused, CheckBroken
from services.inference.outbound.sandbox import Sandbox
from tests.unit.inference import tiny
from tests.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.slow


def exploding(gigabytes: int) -> onnx.ModelProto:
    """A few bytes that become gigabytes when they are folded at load."""
    shape = numpy_helper.from_array(np.array([gigabytes, 1024, 1024, 256], np.int64), "huge")
    model = tiny.graph(
        [
            helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
        ],
        replaced={"product": helper.make_node("MatMul", ["embedding", "shifted"], ["product"])},
    )
    model.graph.node.insert(2, helper.make_node("Add", ["head", "nothing"], ["shifted"]))
    model.graph.initializer.append(shape)
    return model


def slow() -> onnx.ModelProto:
    """A small graph whose one run would take minutes."""
    side = 4096
    shape = numpy_helper.from_array(np.array([side, side], np.int64), "side")
    first = [
        helper.make_node("Cast", ["attention_mask"], ["float_mask"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float_mask"], ["seed"], keepdims=0),
        helper.make_node("Expand", ["seed", "side"], ["m0"]),
    ]
    powers = [helper.make_node("MatMul", [f"m{step}", f"m{step}"], [f"m{step + 1}"]) for step in range(400)]
    last = helper.make_node("ReduceMean", ["m400"], ["late"], keepdims=0)
    model = tiny.graph([*first, *powers, last])
    model.graph.initializer.append(shape)
    model.graph.node[-1].input[1] = "late"
    return model


async def refusal_of(folder: Path, seconds: float = 60.0) -> str:
    with pytest.raises(ArtifactRefused) as caught:
        await Sandbox(rows=4, seconds=seconds).check(folder, Precision.FP32)
    assert str(folder) not in str(caught.value)
    return caught.value.reason_code


async def test_an_honest_artifact_passes(tmp_path: Path) -> None:
    await Sandbox(rows=8, seconds=60).check(tiny.write(tmp_path), Precision.FP32)


async def test_a_refusal_comes_back_with_its_code(tmp_path: Path) -> None:
    (tiny.write(tmp_path) / "fp32.onnx").write_bytes(b"\x80\x04\x95a pickle")
    assert await refusal_of(tmp_path) == "not_onnx"


async def test_a_constant_that_explodes_is_stopped_by_the_memory_limit(tmp_path: Path) -> None:
    assert await refusal_of(tiny.write(tmp_path, exploding(8))) in ("too_much_memory", "crashed")


async def test_a_graph_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    tiny.write(tmp_path, slow())
    began = time.monotonic()
    assert await refusal_of(tmp_path, seconds=5.0) in ("too_slow", "crashed")
    assert time.monotonic() - began < LIMIT_SECONDS


async def test_a_check_that_cannot_begin_says_nothing_of_the_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(CheckBroken):
        await Sandbox(rows=4, seconds=60).check(tiny.write(tmp_path / "artifact"), Precision.FP32)
