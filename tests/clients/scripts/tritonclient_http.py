"""tritonclient over HTTP: health, metadata, tensors both ways, compression, statistics, the repository, errors."""

import json
import os
from importlib.metadata import version as installed

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

ADDRESS = os.environ["MILLRACE_REST"].removeprefix("http://")
MODEL = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])
LABELS = json.loads(os.environ["MILLRACE_LABELS"])
HEADERS = {"authorization": f"Bearer {os.environ['MILLRACE_KEY']}"}


class Key(triton.InferenceServerClientPlugin):
    """Puts the key on every request."""

    def __call__(self, request):
        request.headers.update(HEADERS)


def report(call, result="works"):
    row = {"client": "tritonclient[http]", "version": installed("tritonclient"), "call": call, "result": result}
    print(json.dumps(row), flush=True)


def error_of(invoke):
    try:
        invoke()
    except InferenceServerException as error:
        return error
    raise AssertionError("it was not refused")


def refused(call, words, invoke, status="400"):
    error = error_of(invoke)
    assert error.status() == status, error
    assert words in error.message(), error.message()
    report(call, f"refused: [{status}] {words}")


def text(texts, binary=True, shape=None, datatype="BYTES"):
    array = np.array([one.encode() for one in texts], dtype=np.object_).reshape(shape or [len(texts)])
    given = triton.InferInput("text", list(array.shape), "BYTES").set_data_from_numpy(array, binary_data=binary)
    given._datatype = datatype  # the client itself would refuse another one for strings
    return given


def outputs(*names, binary=True):
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def check_labels(result, count):
    labels, scores = result.as_numpy("label"), result.as_numpy("score")
    assert labels.shape == scores.shape == (count,)
    assert {label.decode() if isinstance(label, bytes) else label for label in labels} <= set(LABELS)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores <= 1)).all()


def health(stranger, client):
    assert stranger.is_server_live()
    assert stranger.is_server_ready()
    report("is_server_live, is_server_ready, without a key")
    assert client.is_model_ready(MODEL)
    assert not client.is_model_ready(MODEL, "999")
    report("is_model_ready")


def metadata(client):
    server = client.get_server_metadata()
    assert server["name"] == "millrace"
    assert "binary_tensor_data" in server["extensions"]
    report("get_server_metadata")
    model = client.get_model_metadata(MODEL)
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in model["outputs"]] == ["label", "score", "labels", "scores", "embedding"]
    number = model["versions"][-1]
    assert client.get_model_metadata(MODEL, number)["versions"] == [number]
    report("get_model_metadata")
    config = client.get_model_config(MODEL)
    assert (config["name"], config["max_batch_size"]) == (MODEL, 64)
    report("get_model_config")
    return number


def infer(client, number):
    check_labels(client.infer(MODEL, [text(TEXTS[:2])]), 2)
    report("infer, binary tensors")
    result = client.infer(MODEL, [text(TEXTS[:3], binary=False)], outputs=outputs("label", "score", binary=False))
    check_labels(result, 3)
    report("infer, JSON tensors")
    requested = outputs("labels", "scores") + outputs("embedding", binary=False)
    result = client.infer(MODEL, [text(TEXTS[:2], shape=[2, 1])], outputs=requested, model_version=number)
    labels, scores, embedding = (result.as_numpy(name) for name in ("labels", "scores", "embedding"))
    assert labels.shape == scores.shape == (2, len(LABELS))
    assert sorted(label.decode() for label in labels[0]) == LABELS
    assert (np.diff(scores) <= 0).all()
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-4)
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-4)
    report("infer of one version: every label, and the embedding")
    options = {"sticky_key": "user-7", "whole_texts": False}
    result = client.infer(MODEL, [text(TEXTS[:1])], request_id="triton-1", timeout=20_000_000, parameters=options)
    assert result.get_response()["id"] == "triton-1"
    report("infer with a request id, a timeout and parameters")


def compression(client):
    many = [text((TEXTS * 6)[:64])]
    for way in ("gzip", "deflate"):
        result = client.infer(
            MODEL,
            many,
            outputs=outputs("label", "score", "scores"),
            request_compression_algorithm=way,
            response_compression_algorithm=way,
        )
        check_labels(result, 64)
        report(f"infer of 64 texts, {way} both ways")


def asynchronously(client):
    requests = [
        client.async_infer(MODEL, [text([one])], request_id=f"a-{position}") for position, one in enumerate(TEXTS)
    ]
    results = [request.get_result() for request in requests]
    assert [result.get_response()["id"] for result in results] == [f"a-{position}" for position in range(len(TEXTS))]
    for result in results:
        check_labels(result, 1)
    report("async_infer")


def statistics(client, number):
    def counted():
        (one,) = client.get_inference_statistics(MODEL, number)["model_stats"]
        return one

    before = counted()
    client.infer(MODEL, [text(TEXTS[:3])], model_version=number)
    after = counted()
    assert after["inference_count"] >= before["inference_count"] + 3
    assert after["inference_stats"]["success"]["count"] > before["inference_stats"]["success"]["count"]
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert MODEL in {one["name"] for one in client.get_inference_statistics()["model_stats"]}
    report("get_inference_statistics")


def repository(client, number):
    assert {"name": MODEL, "version": number, "state": "READY", "reason": ""} in client.get_model_repository_index()
    report("get_model_repository_index")
    client.load_model(MODEL)
    chosen = {"version_policy": {"specific": {"versions": [int(number)]}}}
    client.load_model(MODEL, config=json.dumps(chosen))
    assert client.is_model_ready(MODEL)
    report("load_model of what is served")
    unknown = "No deployment is named 'nobody'"
    refused("unload_model of an unknown model", unknown, lambda: client.unload_model("nobody"), "404")
    config = json.dumps({"max_batch_size": 1})
    words = "The field 'parameters.config' is not valid"
    refused("load_model with a configuration", words, lambda: client.load_model(MODEL, config=config))


def errors(stranger, client):
    refused("infer without a key", "A valid API key is needed", lambda: stranger.infer(MODEL, [text(["a"])]), "401")
    unknown = "No deployment is named 'nobody'"
    refused("infer by an unknown model", unknown, lambda: client.infer("nobody", [text(["a"])]), "404")
    refused(
        "infer by a version that is not served",
        f"Version 999 of '{MODEL}' is not being served",
        lambda: client.infer(MODEL, [text(["a"])], model_version="999"),
        "404",
    )
    words = "The field 'inputs[0].shape' is not valid"
    refused("infer of 65 texts", words, lambda: client.infer(MODEL, [text(["a"] * 65)]))
    words = "The field 'inputs[0].datatype' is not valid"
    refused("infer of another data type", words, lambda: client.infer(MODEL, [text(["a"], datatype="FP32")]))
    words = "The field 'outputs[0].name' is not valid"
    refused("infer of an unknown output", words, lambda: client.infer(MODEL, [text(["a"])], outputs=outputs("logits")))
    words = "The field 'parameters.sequence_id' is not valid"
    refused("infer of a sequence", words, lambda: client.infer(MODEL, [text(["a"])], sequence_id=7))
    words = "extension for shared memory is not offered"
    refused("get_system_shared_memory_status", words, client.get_system_shared_memory_status, "501")
    words = "extension for trace settings is not offered"
    refused("get_trace_settings", words, lambda: client.get_trace_settings(MODEL), "501")


stranger = triton.InferenceServerClient(ADDRESS, concurrency=2)
client = triton.InferenceServerClient(ADDRESS, concurrency=4)
client.register_plugin(Key())
with stranger, client:
    health(stranger, client)
    number = metadata(client)
    infer(client, number)
    compression(client)
    asynchronously(client)
    statistics(client, number)
    repository(client, number)
    errors(stranger, client)
