"""tritonclient over gRPC: health, metadata, inference, also on a stream, statistics, the repository, errors."""

import json
import os
import queue
from importlib.metadata import version as installed

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

ADDRESS = os.environ["MILLRACE_GRPC"]
MODEL = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])
LABELS = json.loads(os.environ["MILLRACE_LABELS"])
HEADERS = {"authorization": f"Bearer {os.environ['MILLRACE_KEY']}"}


class Key(triton.InferenceServerClientPlugin):
    """Puts the key on every request."""

    def __call__(self, request):
        request.headers.update(HEADERS)


def report(call, result="works"):
    row = {"client": "tritonclient[grpc]", "version": installed("tritonclient"), "call": call, "result": result}
    print(json.dumps(row), flush=True)


def error_of(invoke):
    try:
        invoke()
    except InferenceServerException as error:
        return error
    raise AssertionError("it was not refused")


def refused(call, words, invoke, status="INVALID_ARGUMENT"):
    error = error_of(invoke)
    assert error.status() == f"StatusCode.{status}", error
    assert words in error.message(), error.message()
    report(call, f"refused: [{status}] {words}")


def text(texts, shape=None, datatype="BYTES"):
    array = np.array([one.encode() for one in texts], dtype=np.object_).reshape(shape or [len(texts)])
    given = triton.InferInput("text", list(array.shape), "BYTES").set_data_from_numpy(array)
    given._input.datatype = datatype  # the client itself would refuse another one for strings
    return given


def outputs(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def check_labels(result, count):
    labels, scores = result.as_numpy("label"), result.as_numpy("score")
    assert labels.shape == scores.shape == (count,)
    assert {label.decode() for label in labels} <= set(LABELS)
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
    server = client.get_server_metadata(as_json=True)
    assert server["name"] == "millrace"
    assert "binary_tensor_data" in server["extensions"]
    report("get_server_metadata")
    model = client.get_model_metadata(MODEL)
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [("text", "BYTES", [-1])]
    assert [output.name for output in model.outputs] == ["label", "score", "labels", "scores", "embedding"]
    number = model.versions[-1]
    assert list(client.get_model_metadata(MODEL, number).versions) == [number]
    report("get_model_metadata")
    config = client.get_model_config(MODEL).config
    assert (config.name, config.max_batch_size) == (MODEL, 64)
    assert config.HasField("dynamic_batching")
    report("get_model_config")
    return number


def infer(client, number):
    check_labels(client.infer(MODEL, [text(TEXTS[:2])]), 2)
    report("infer")
    requested = outputs("labels", "scores", "embedding")
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
    assert result.get_response().id == "triton-1"
    report("infer with a request id, a timeout and parameters")
    for way in ("gzip", "deflate"):
        check_labels(client.infer(MODEL, [text((TEXTS * 6)[:64])], compression_algorithm=way, client_timeout=20), 64)
        report(f"infer of 64 texts, {way}")


def asynchronously(client):
    answers = queue.Queue()
    for position, one in enumerate(TEXTS):
        client.async_infer(
            MODEL, [text([one])], lambda result, error: answers.put((result, error)), request_id=f"a-{position}"
        )
    ids = set()
    for _ in TEXTS:
        result, error = answers.get(timeout=30)
        assert error is None, error
        check_labels(result, 1)
        ids.add(result.get_response().id)
    assert ids == {f"a-{position}" for position in range(len(TEXTS))}
    report("async_infer")


def streaming(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for position, one in enumerate(TEXTS):
        client.async_stream_infer(MODEL, [text([one])], request_id=f"s-{position}")
    client.async_stream_infer("nobody", [text(["a"])])
    client.async_stream_infer(MODEL, [text(["a"])], request_id="last", enable_empty_final_response=True)
    for position in range(len(TEXTS)):
        result, error = answers.get(timeout=30)
        assert error is None, error
        assert result.get_response().id == f"s-{position}", "answers come in the order of the requests"
        check_labels(result, 1)
    result, error = answers.get(timeout=30)
    assert result is None
    assert "No deployment is named 'nobody'" in error.message()
    result, error = answers.get(timeout=30)
    assert error is None, error
    assert result.get_response().id == "last"
    assert result.get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()
    report("start_stream, async_stream_infer: in order, and on after an error")


def statistics(client, number):
    def counted():
        (one,) = client.get_inference_statistics(MODEL, number).model_stats
        return one

    before = counted()
    client.infer(MODEL, [text(TEXTS[:3])], model_version=number)
    after = counted()
    assert after.inference_count >= before.inference_count + 3
    assert after.inference_stats.success.count > before.inference_stats.success.count
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert MODEL in {one.name for one in client.get_inference_statistics().model_stats}
    report("get_inference_statistics")


def repository(client, number):
    index = client.get_model_repository_index().models
    assert (MODEL, number, "READY", "") in [(one.name, one.version, one.state, one.reason) for one in index]
    report("get_model_repository_index")
    client.load_model(MODEL)
    chosen = {"version_policy": {"specific": {"versions": [int(number)]}}}
    client.load_model(MODEL, config=json.dumps(chosen))
    assert client.is_model_ready(MODEL)
    report("load_model of what is served")
    unknown = "No deployment is named 'nobody'"
    refused("unload_model of an unknown model", unknown, lambda: client.unload_model("nobody"), "NOT_FOUND")
    files = {"file:1/model.onnx": b"no graph"}
    words = "The field 'parameters.file:1/model.onnx' is not valid"
    refused("load_model with files", words, lambda: client.load_model(MODEL, files=files))


def errors(stranger, client):
    key = "A valid API key is needed"
    refused("infer without a key", key, lambda: stranger.infer(MODEL, [text(["a"])]), "UNAUTHENTICATED")
    unknown = "No deployment is named 'nobody'"
    refused("infer by an unknown model", unknown, lambda: client.infer("nobody", [text(["a"])]), "NOT_FOUND")
    refused(
        "infer by a version that is not served",
        f"Version 999 of '{MODEL}' is not being served",
        lambda: client.infer(MODEL, [text(["a"])], model_version="999"),
        "NOT_FOUND",
    )
    words = "The field 'inputs[0].shape' is not valid"
    refused("infer of 65 texts", words, lambda: client.infer(MODEL, [text(["a"] * 65)]))
    words = "The field 'inputs[0].datatype' is not valid"
    refused("infer of another data type", words, lambda: client.infer(MODEL, [text(["a"], datatype="FP32")]))
    words = "The field 'raw_input_contents[0]' is not valid"
    refused("infer of fewer texts than told", words, lambda: client.infer(MODEL, [text(["a"]).set_shape([2])]))
    words = "The field 'outputs[0].name' is not valid"
    refused("infer of an unknown output", words, lambda: client.infer(MODEL, [text(["a"])], outputs=outputs("logits")))
    words = "The field 'parameters.sequence_id' is not valid"
    refused("infer of a sequence", words, lambda: client.infer(MODEL, [text(["a"])], sequence_id=7))
    words = "extension for shared memory is not offered"
    refused("get_system_shared_memory_status", words, client.get_system_shared_memory_status, "UNIMPLEMENTED")
    words = "extension for trace settings is not offered"
    refused("get_trace_settings", words, lambda: client.get_trace_settings(MODEL), "UNIMPLEMENTED")


stranger = triton.InferenceServerClient(ADDRESS)
client = triton.InferenceServerClient(ADDRESS)
client.register_plugin(Key())
with stranger, client:
    health(stranger, client)
    number = metadata(client)
    infer(client, number)
    asynchronously(client)
    streaming(client)
    statistics(client, number)
    repository(client, number)
    errors(stranger, client)
