"""The artifact checks: what is refused, by which code, and that nothing of the machine leaks into the reason."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from services.contracts.artifact import SPEC_FILE, TOKENIZER_FILE, Precision
from services.inference.errors import ArtifactRefused
from services.inference.outbound.checking import check
from tests.unit.inference import tiny

Change = Callable[[onnx.ModelProto], Any]


def refusal_of(folder: Path) -> ArtifactRefused:
    with pytest.raises(ArtifactRefused) as caught:
        check(folder, Precision.FP32, rows=4)
    assert str(folder) not in str(caught.value)
    return caught.value


def test_an_honest_artifact_passes(tmp_path: Path) -> None:
    check(tiny.write(tmp_path), Precision.FP32, rows=8)


def external(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)


def external_in_a_constant(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    tensor.external_data.add(key="location", value="../../secret")
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def external_in_a_branch(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    tensor.data_location = TensorProto.EXTERNAL
    branch = helper.make_graph([helper.make_node("Constant", [], ["b"], value=tensor)], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))


def loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["looped"], body=body))


def loop_in_a_branch(model: onnx.ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Loop", [], ["z"])], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body))


def nested_too_deep(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    for _ in range(12):
        body = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=body)], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=body))


def dims(*sizes: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(sizes)

    return change


def typed(number: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].data_type = number

    return change


def operator(name: str, domain: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node(name, ["logits"], ["extra"], domain=domain))
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def functions(model: onnx.ModelProto) -> None:
    body = [helper.make_node("F", ["x"], ["y"], domain="own")]
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], body, [helper.make_opsetid("own", 1)]))


def third_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["b", "t"]))


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def float_ids(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def one_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def more_labels(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def dangling(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


LIES = [(1,), (-1, -1), (2**40, 2**30), (0,), (tiny.VOCABULARY, tiny.WIDTH, 2)]

GRAPHS: list[tuple[str, Change]] = [
    *[
        ("external_data", lambda model, qualified_name=qualified_name: external(model, qualified_name))
        for qualified_name in ("w.bin", "../w", "/etc/passwd", "")
    ],
    ("external_data", external_in_a_constant),
    ("external_data", external_in_a_branch),
    ("forbidden_operator", loop),
    ("forbidden_operator", loop_in_a_branch),
    ("forbidden_operator", operator("Scan", "")),
    ("too_deep", nested_too_deep),
    *[
        ("lying_sizes", dims(*sizes))
        for sizes in [(1,), (-1, -1), (2**40, 2**30), (0,), (tiny.VOCABULARY, tiny.WIDTH, 2)]
    ],
    *[("tensor_type", typed(number)) for number in (0, 8, 14, 15, 99)],
    *[
        ("unknown_operator", operator(*pair))
        for pair in [("Nope", ""), ("Inverse", "com.microsoft"), ("Gelu", "evil"), ("LinearRegressor", "ai.onnx.ml")]
    ],
    ("local_functions", functions),
    ("wrong_inputs", third_input),
    ("wrong_inputs", fixed_batch),
    ("wrong_inputs", float_ids),
    ("wrong_outputs", one_output),
    ("wrong_outputs", more_labels),
    ("sparse_tensors", sparse),
    ("invalid_graph", dangling),
]


@pytest.mark.parametrize(("code", "change"), GRAPHS, ids=[f"{code}-{index}" for index, (code, _) in enumerate(GRAPHS)])
def test_a_graph_that_breaks_a_rule_is_refused_before_it_is_loaded(tmp_path: Path, code: str, change: Change) -> None:
    model = tiny.graph()
    change(model)
    assert refusal_of(tiny.write(tmp_path, model)).reason_code == code


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95\x00\x00",
        b"\x80\x02}q\x00.",
        b"PK\x03\x04" + b"\x00" * 64,
        b"\x1f\x8b\x08\x00",
        b"<!DOCTYPE html><html></html>",
        b"  \n<html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x00" * 1000,
        b"\xff" * 1000,
        b"not a model at all",
    ],
)
def test_a_file_that_is_no_graph_is_refused_as_such(tmp_path: Path, content: bytes) -> None:
    folder = tiny.write(tmp_path)
    (folder / "fp32.onnx").write_bytes(content)
    assert refusal_of(folder).reason_code == "not_onnx"


def test_a_graph_cut_anywhere_is_refused(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path)
    complete = (folder / "fp32.onnx").read_bytes()
    for length in random.Random(5).sample(range(1, len(complete) - 1), 40):
        (folder / "fp32.onnx").write_bytes(complete[:length])
        refusal_of(folder)


def replaced(name: str, node: onnx.NodeProto) -> onnx.ModelProto:
    return tiny.graph(replaced={name: node})


@pytest.mark.parametrize(
    ("code", "model"),
    [
        (
            "mask_ignored",
            lambda: replaced("mask3", helper.make_node("ConstantOfShape", ["ones_shape"], ["mask3"])),
        ),
        ("not_unit_length", lambda: replaced("embedding", helper.make_node("Identity", ["total"], ["embedding"]))),
        ("not_finite", lambda: replaced("logits", helper.make_node("Log", ["bias_as_logits"], ["logits"]))),
        ("fails_to_run", lambda: replaced("vectors", helper.make_node("Gather", ["short", "input_ids"], ["vectors"]))),
    ],
    ids=["mask_ignored", "not_unit_length", "not_finite", "fails_to_run"],
)
def test_a_graph_that_answers_wrongly_is_refused(
    tmp_path: Path, code: str, model: Callable[[], onnx.ModelProto]
) -> None:
    built = model()
    extra = {"short": np.ones((6, tiny.WIDTH), np.float32), "minus": np.array([-1.0], np.float32)}
    built.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in extra.items())
    if code == "mask_ignored":
        shape = [
            helper.make_node("Shape", ["input_ids"], ["ids_shape"]),
            helper.make_node("Concat", ["ids_shape", "second"], ["ones_shape"], axis=0),
        ]
        one = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
        next(node for node in built.graph.node if node.op_type == "ConstantOfShape").attribute.append(
            helper.make_attribute("value", one)
        )
        for position, node in enumerate(shape):
            built.graph.node.insert(position, node)
    if code == "not_finite":
        before_last = len(built.graph.node) - 1
        built.graph.node.insert(before_last, helper.make_node("Mul", ["square", "minus"], ["bias_as_logits"]))
        built.graph.node.insert(before_last, helper.make_node("Mul", ["product", "product"], ["square"]))
    assert refusal_of(tiny.write(tmp_path, built)).reason_code == code


def test_a_description_that_does_not_fit_the_graph_is_refused(tmp_path: Path) -> None:
    assert refusal_of(tiny.write(tmp_path, described=tiny.spec(embedding_width=9))).reason_code == "wrong_outputs"
    assert refusal_of(tiny.write(tmp_path, described=tiny.spec(labels=["a", "a"]))).reason_code == "bad_spec"
    assert refusal_of(tiny.write(tmp_path, described=tiny.spec(variants=["int8"]))).reason_code == "missing_variant"
    (tmp_path / SPEC_FILE).write_text('{"labels": ["a"]}')
    assert refusal_of(tmp_path).reason_code == "bad_spec"
    (tmp_path / SPEC_FILE).unlink()
    assert refusal_of(tmp_path).reason_code == "bad_spec"


@pytest.mark.parametrize("content", ["", "{}", "<html>", '{"version": "1.0"}'])
def test_a_broken_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    folder = tiny.write(tmp_path)
    (folder / TOKENIZER_FILE).write_text(content)
    assert refusal_of(folder).reason_code == "bad_tokenizer"


def test_a_tokenizer_with_more_tokens_than_the_model_knows_is_refused(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path)
    larger = tiny.tokenizer()
    larger.add_tokens([f"word{number}" for number in range(10)])
    (folder / TOKENIZER_FILE).write_text(larger.to_str())
    assert refusal_of(folder).reason_code == "fails_to_run"
