"""The Open Inference Protocol by a running gateway: the same model by REST and by gRPC."""

from array import array
from typing import Any

import pytest

from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.inbound.oip.rpc import SERVICE
from services.gateway.inbound.oip.tensors import pack_strings, unpack_strings
from tests.integration.gateway.place import EMBEDDING, Place, target

INFER = "/v2/models/news/infer"


def asked(*texts: str, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}], **more}


async def serving(place: Place) -> None:
    await place.replica("replica-1", 1)
    await place.deploy(target(1))
    await place.serves(1)


async def test_json_tensors_come_back_as_json(place: Place) -> None:
    await serving(place)
    reply = await place.client.post(INFER, json=asked("a", "b", id="req-7"))
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-millrace-version"] == "1"
    assert reply.json() == {
        "model_name": "news",
        "model_version": "1",
        "id": "req-7",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["dev", "dev"]},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.75, 0.75]},
        ],
    }


async def test_grpc_answers_in_raw_contents(place: Place) -> None:
    await serving(place)
    infer = place.rpc_method(SERVICE, "ModelInfer")
    given = pb.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[2])
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in ("labels", "scores", "embedding")]
    request = pb.ModelInferRequest(
        model_name="news", id="req-8", inputs=[given], outputs=wanted, raw_input_contents=[pack_strings(["a", "b"])]
    )
    answer = await infer(request)
    assert (answer.model_name, answer.model_version, answer.id) == ("news", "1", "req-8")
    assert [(output.name, list(output.shape)) for output in answer.outputs] == [
        ("labels", [2, 2]),
        ("scores", [2, 2]),
        ("embedding", [2, 3]),
    ]
    labels, scores, embedding = answer.raw_output_contents
    assert unpack_strings(labels, 4, "labels") == ["dev", "data", "dev", "data"]
    assert array("f", scores).tolist() == [0.75, 0.25, 0.75, 0.25]
    assert array("f", embedding).tolist() == pytest.approx([*EMBEDDING, *EMBEDDING])
