"""Inference requests of the Open Inference Protocol: both transports' forms become the same command."""

import json
import struct
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import BadField, InternalError, MillraceError
from services.contracts.rpc import open_inference_pb2 as pb
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest, ClassificationResult, LabelScore, Prediction
from services.contracts.tasks.task import AnswerInfo
from services.gateway.domain.requests import Answer, Predict
from services.gateway.inbound.oip import grpc_converters, rest_converters
from services.gateway.inbound.oip.infer import InferRequest, RequestedOutput, outputs_of, predict_command, words
from services.gateway.inbound.oip.tensors import pack_strings
from services.kit.core.ids import SeededIds

TWO: Final = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "é"]}
SCORES: Final = (LabelScore("dev", 0.75), LabelScore("data", 0.25))
RESULT: Final = ClassificationResult(
    predictions=(Prediction("dev", 0.75, SCORES), Prediction("dev", 0.5, SCORES)),
    embeddings=(array("f", [0.0, 1.0, 0.0]), array("f", [1.0, 0.0, 0.0])),
)


def answer_of(result: ClassificationResult) -> Answer:
    payload = CLASSIFICATION.encode_result(result, AnswerInfo("req-1", "news", "news", 3, tokens=7))
    return Answer("req-1", "news", CLASSIFICATION, payload, "news", 3, tokens=7)


ANSWER: Final = answer_of(RESULT)
INT64 = st.integers(-(2**63), 2**63 - 1)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def command(request: InferRequest) -> Predict:
    return predict_command(request, tenant="default", ids=SeededIds(7), now=100.0, seconds=30.0)


def from_rest(body: Mapping[str, Any], tail: bytes = b"", *, length: str | None = None, version: str = "") -> Predict:
    head = json.dumps(body).encode()
    response = length if length is not None or not tail else str(len(head))
    return command(rest_converters.read_request(head + tail, response, model="news", version=version))


def from_grpc(**fields: Any) -> Predict:
    return command(grpc_converters.read_request(pb.ModelInferRequest(**{"model_name": "news", **fields})))


def tensor(
    *shape: int, datatype: str = "BYTES", name: str = "text", **more: Any
) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, **more)


def outcome(read: Callable[[], Predict]) -> Predict | MillraceError:
    try:
        return read()
    except MillraceError as error:
        return error


def parameters(**values: Any) -> dict[str, pb.InferParameter]:
    kinds = {str: "string_param", bool: "bool_param", int: "int64_param", float: "double_param"}
    return {name: pb.InferParameter(**{kinds[type(value)]: value}) for name, value in values.items()}


# --- what is asked


def test_json_binary_and_both_grpc_forms_are_one_request() -> None:
    raw = pack_strings(["a", "é"])
    options = {"sticky_key": "me", "timeout": 2_000_000, "whole_texts": True}
    binary = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(raw)}}
    more: dict[str, Any] = {"id": "req-1", "parameters": options, "outputs": [{"name": "embedding"}]}
    in_grpc = {"id": "req-1", "parameters": parameters(**options), "model_version": "3"}
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name="embedding")]
    contents = pb.InferTensorContents(bytes_contents=[b"a", "é".encode()])
    assert (
        from_rest({"inputs": [TWO], **more}, version="3")
        == from_rest({"inputs": [{**TWO, "shape": [2, 1], "data": [["a"], ["é"]]}], **more}, version="3")
        == from_rest({"inputs": [binary], **more}, raw, version="3")
        == from_grpc(inputs=[tensor(2)], raw_input_contents=[raw], outputs=outputs, **in_grpc)
        == from_grpc(inputs=[tensor(2, 1, contents=contents)], outputs=outputs, **in_grpc)
        == Predict(
            tenant="default",
            deployment="news",
            task=CLASSIFICATION,
            request=ClassificationRequest(["a", "é"], with_embeddings=True, truncate=False),
            request_id="req-1",
            deadline=102.0,
            sticky_key="me",
            version=3,
        )
    )


def test_unless_it_is_requested_there_is_no_embedding_and_the_longest_time_is_the_endpoints() -> None:
    request = from_rest({"inputs": [TWO], "parameters": {"timeout": 0}})
    assert (request.deadline, request.version, request.request) == (130.0, 0, ClassificationRequest(["a", "é"]))
    assert request.request_id, "an id is made where none is given"
    assert from_rest({"inputs": [TWO], "parameters": {"timeout": 10**12}}).deadline == 130.0


def bad(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**TWO, **changes}]}


SHARED: Final = {"shared_memory_region": "r", "shared_memory_byte_size": 4}
BAD_REST: Final[list[tuple[dict[str, Any], str]]] = [
    ({}, "inputs"),
    ({"inputs": []}, "inputs"),
    ({"inputs": {}}, "inputs"),
    ({"inputs": ["a"]}, "inputs[0]"),
    ({"inputs": [TWO], "model": "x"}, "model"),
    ({"inputs": [TWO], "id": 7}, "id"),
    ({"inputs": [TWO], "id": "../etc"}, "id"),
    ({"inputs": [TWO], "id": "i" * 129}, "id"),
    ({"inputs": [TWO, TWO]}, "inputs[1].name"),
    ({"inputs": [TWO, {**TWO, "name": "mask"}]}, "inputs[1].name"),
    (bad(name="texts"), "inputs[0].name"),
    (bad(name=None), "inputs[0].name"),
    (bad(datatype="FP32", data=[1.0, 2.0]), "inputs[0].datatype"),
    (bad(datatype="bytes"), "inputs[0].datatype"),
    (bad(datatype=1), "inputs[0].datatype"),
    (bad(shape=[3]), "inputs[0].data"),
    (bad(shape=[1]), "inputs[0].data"),
    (bad(shape=[-2]), "inputs[0].shape"),
    (bad(shape=[2, 2]), "inputs[0].shape"),
    (bad(shape=[2**62, 4]), "inputs[0].shape"),
    (bad(shape=[2**64 + 2]), "inputs[0].shape"),
    (bad(shape=[2.0]), "inputs[0].shape"),
    (bad(shape=[True]), "inputs[0].shape"),
    (bad(shape="2"), "inputs[0].shape"),
    (bad(shape=None), "inputs[0].shape"),
    (bad(data="ab"), "inputs[0].data"),
    (bad(data=["a", 1]), "inputs[0].data[1]"),
    (bad(data=[["a", "b"], "c"]), "inputs[0].data[0]"),
    (bad(dtype="BYTES"), "inputs[0].dtype"),
    (bad(parameters=[]), "inputs[0].parameters"),
    (bad(parameters=SHARED), "inputs[0].parameters.shared_memory_byte_size"),
    (bad(parameters={"binary_data_size": 4}), "inputs[0].data"),
    ({"inputs": [{key: TWO[key] for key in ("name", "datatype", "shape")}]}, "inputs[0].data"),
    ({"inputs": [TWO], "parameters": {"timeout": -1}}, "parameters.timeout"),
    ({"inputs": [TWO], "parameters": {"timeout": 1.5}}, "parameters.timeout"),
    ({"inputs": [TWO], "parameters": {"timeout": True}}, "parameters.timeout"),
    ({"inputs": [TWO], "parameters": {"timeout": "1"}}, "parameters.timeout"),
    ({"inputs": [TWO], "parameters": {"sticky_key": 1}}, "parameters.sticky_key"),
    ({"inputs": [TWO], "parameters": {"stick_key": "a"}}, "parameters.stick_key"),
    ({"inputs": [TWO], "parameters": {"whole_texts": 1}}, "parameters.whole_texts"),
    ({"inputs": [TWO], "parameters": {"priority": 1}}, "parameters.priority"),
    ({"inputs": [TWO], "parameters": {"sequence_end": True, "sequence_id": 1}}, "parameters.sequence_id"),
    ({"inputs": [TWO], "parameters": {"sequence_start": False}}, "parameters.sequence_start"),
    ({"inputs": [TWO], "parameters": {"deep": {}}}, "parameters.deep"),
    ({"inputs": [TWO], "outputs": [{"name": "logits"}]}, "outputs[0].name"),
    ({"inputs": [TWO], "outputs": [{"name": "label"}, {"name": "label"}]}, "outputs[1].name"),
    ({"inputs": [TWO], "outputs": [{}]}, "outputs[0].name"),
    (
        {"inputs": [TWO], "outputs": [{"name": "label", "parameters": SHARED}]},
        "outputs[0].parameters.shared_memory_byte_size",
    ),
    (
        {"inputs": [TWO], "outputs": [{"name": "scores", "parameters": {"classification": 2}}]},
        "outputs[0].parameters.classification",
    ),
    (
        {"inputs": [TWO], "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
        "outputs[0].parameters.binary_data",
    ),
    ({"inputs": [TWO], "outputs": [{"name": "label", "parameters": {"x": 1}}]}, "outputs[0].parameters.x"),
    (bad(parameters={"x": 1}), "inputs[0].parameters.x"),
    (bad(parameters={"content_type": "hg_json"}), "inputs[0].parameters.content_type"),
]


@pytest.mark.parametrize(("body", "field"), BAD_REST, ids=lambda value: value if isinstance(value, str) else "")
def test_a_bad_rest_request_names_its_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(MillraceError) as refused:
        from_rest(body)
    assert refused.value.body().field == field


@pytest.mark.parametrize(
    ("size", "tail", "length", "field"),
    [
        (4, b"", None, "inputs[0].parameters.binary_data_size"),
        (-1, b"\0" * 4, None, "inputs[0].parameters.binary_data_size"),
        (2**63, b"\0" * 4, None, "inputs[0].parameters.binary_data_size"),
        (5, b"\0" * 4, None, "inputs[0].parameters.binary_data_size"),
        (4.0, b"\0" * 4, None, "inputs[0].parameters.binary_data_size"),
        (True, b"\0" * 4, None, "inputs[0].parameters.binary_data_size"),
        (3, b"\0" * 4, None, "body"),
        (4, b"\0" * 5, None, "body"),
        (4, b"\0" * 4, "0", "inference-header-content-length"),
        (4, b"\0" * 4, "-5", "inference-header-content-length"),
        (4, b"\0" * 4, "1e2", "inference-header-content-length"),
        (4, b"\0" * 4, "9" * 30, "inference-header-content-length"),
        (4, b"\0" * 4, "10", "body"),
        (4, struct.pack("<I", 2**32 - 1), None, "inputs[0].data"),
        (5, b"\x01\0\0\0\xff", None, "inputs[0].data"),
    ],
)
def test_a_lie_about_binary_data_is_refused(size: Any, tail: bytes, length: str | None, field: str) -> None:
    given_ = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
    with pytest.raises(MillraceError) as refused:
        from_rest({"inputs": [given_]}, tail, length=length)
    assert refused.value.body().field == field


BAD_GRPC: Final[list[tuple[dict[str, Any], str]]] = [
    ({"model_name": ""}, "model_name"),
    ({"model_name": "../x"}, "model_name"),
    ({"model_version": "latest"}, "model_version"),
    ({"model_version": "0"}, "model_version"),
    ({"model_version": "01"}, "model_version"),
    ({"model_version": "4294967296"}, "model_version"),
    ({"model_version": "-1"}, "model_version"),
    ({"id": "a b"}, "id"),
    ({"inputs": []}, "raw_input_contents"),
    ({"inputs": [], "raw_input_contents": []}, "inputs"),
    ({"raw_input_contents": [b"", b""]}, "raw_input_contents"),
    ({"raw_input_contents": [b"\x02\0\0\0a"]}, "raw_input_contents[0]"),
    ({"raw_input_contents": [b""]}, "raw_input_contents[0]"),
    ({"raw_input_contents": []}, "inputs[0].contents.bytes_contents"),
    ({"inputs": [tensor(2)]}, "raw_input_contents[0]"),
    ({"inputs": [tensor(-1)]}, "inputs[0].shape"),
    ({"inputs": [tensor(2**62, 4)]}, "inputs[0].shape"),
    ({"inputs": [tensor(1, name="x")]}, "inputs[0].name"),
    ({"inputs": [tensor(1, datatype="INT64")]}, "inputs[0].datatype"),
    ({"inputs": [tensor(1, contents=pb.InferTensorContents(bytes_contents=[b"a"]))]}, "inputs[0].contents"),
    (
        {"inputs": [tensor(1, contents=pb.InferTensorContents(int_contents=[1]))], "raw_input_contents": []},
        "inputs[0].contents.bytes_contents",
    ),
    (
        {"inputs": [tensor(1, contents=pb.InferTensorContents(bytes_contents=[b"\xff"]))], "raw_input_contents": []},
        "inputs[0].contents.bytes_contents",
    ),
    ({"inputs": [tensor(1, parameters=parameters(**SHARED))]}, "inputs[0].parameters.shared_memory_byte_size"),
    ({"parameters": {"timeout": pb.InferParameter()}}, "parameters.timeout"),
    ({"parameters": parameters(timeout=-5)}, "parameters.timeout"),
    ({"parameters": parameters(timeout=0.5)}, "parameters.timeout"),
    ({"parameters": parameters(sequence_id="s")}, "parameters.sequence_id"),
    ({"parameters": parameters(unheard_of=1)}, "parameters.unheard_of"),
    ({"outputs": [pb.ModelInferRequest.InferRequestedOutputTensor(name="")]}, "outputs[0].name"),
]


@pytest.mark.parametrize(("changes", "field"), BAD_GRPC, ids=lambda value: value if isinstance(value, str) else "")
def test_a_bad_grpc_request_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(MillraceError) as refused:
        from_grpc(**{"inputs": [tensor(1)], "raw_input_contents": [pack_strings(["a"])], **changes})
    assert refused.value.body().field == field


@given(st.dictionaries(st.sampled_from(["id", "parameters", "inputs", "outputs"]), JSON_VALUES), st.binary(max_size=20))
def test_no_body_whatsoever_breaks_the_rest_reader(body: dict[str, Any], tail: bytes) -> None:
    for sent in (body, {"inputs": [body]}, {"inputs": [{**TWO, **body}]}, {"inputs": [TWO], "outputs": [body]}):
        came = outcome(lambda sent=sent: from_rest(sent, tail))  # type: ignore[misc]
        assert came.request.texts if isinstance(came, Predict) else came.body().field, "each refusal names its field"


@given(st.binary(max_size=200), st.none() | st.text(alphabet="0123456789-+ ", max_size=8))
def test_no_bytes_whatsoever_break_the_rest_reader(body: bytes, length: str | None) -> None:
    with pytest.raises(MillraceError):
        command(rest_converters.read_request(body, length, model="news", version=""))


@given(
    st.lists(INT64, max_size=3), st.lists(st.binary(max_size=20), max_size=2), st.sampled_from(["BYTES", "FP32", ""])
)
def test_no_shape_nor_raw_contents_break_the_grpc_reader(shape: list[int], raw: list[bytes], datatype: str) -> None:
    came = outcome(lambda: from_grpc(inputs=[tensor(*shape, datatype=datatype)], raw_input_contents=raw))
    assert len(came.request.texts) == shape[0] if isinstance(came, Predict) else came.body().field


# --- what is answered


def test_each_output_has_its_shape_and_its_elements_in_row_major_order() -> None:
    response = {
        output.name: output for output in outputs_of(ANSWER, ["label", "score", "labels", "scores", "embedding"])
    }
    assert {name: (output.datatype, output.shape) for name, output in response.items()} == {
        "label": ("BYTES", (2,)),
        "score": ("FP32", (2,)),
        "labels": ("BYTES", (2, 2)),
        "scores": ("FP32", (2, 2)),
        "embedding": ("FP32", (2, 3)),
    }
    assert list(response["labels"].elements) == ["dev", "data", "dev", "data"]
    assert list(response["scores"].elements) == [0.75, 0.25, 0.75, 0.25]
    assert response["embedding"].raw() == struct.pack("<6f", 0, 1, 0, 1, 0, 0)


def test_rows_of_unlike_length_are_an_error_of_ours_and_never_a_crooked_tensor() -> None:
    crooked = answer_of(ClassificationResult([Prediction("a", 1.0, SCORES), Prediction("a", 1.0, SCORES[:1])]))
    for name in ("labels", "scores", "embedding"):
        with pytest.raises(InternalError):
            outputs_of(crooked, [name])


def requesting(*listed: tuple[str, bool | None], otherwise: bool = False) -> InferRequest:
    outputs = [RequestedOutput(name, {} if binary is None else {"binary_data": binary}) for name, binary in listed]
    return InferRequest("news", "", "", {"binary_data_output": True} if otherwise else {}, [], outputs)


def test_binary_outputs_follow_the_head_in_their_order() -> None:
    body, length = rest_converters.write_answer(ANSWER, requesting(("score", True), ("label", False), ("labels", True)))
    assert length is not None
    head = json.loads(body[:length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("news", "3", "req-1")
    assert [output.get("parameters") for output in head["outputs"]] == [
        {"binary_data_size": 8},
        None,
        {"binary_data_size": 30},
    ]
    assert head["outputs"][1]["data"] == ["dev", "dev"]
    assert body[length:] == struct.pack("<2f", 0.75, 0.5) + pack_strings(["dev", "data", "dev", "data"])


def test_the_requests_choice_of_binary_holds_where_an_output_makes_none() -> None:
    body, length = rest_converters.write_answer(ANSWER, requesting(("label", None), ("score", False), otherwise=True))
    assert length is not None
    assert ["data" in output for output in json.loads(body[:length])["outputs"]] == [False, True]
    assert rest_converters.write_answer(ANSWER, requesting())[1] is None


def test_a_string_holds_all_of_a_refusal() -> None:
    response = words(BadField(name="inputs[0].shape", problem="no", field="inputs[0].shape", hint="try [N]"))
    assert response == "The field 'inputs[0].shape' is not valid: no. (try [N])"
