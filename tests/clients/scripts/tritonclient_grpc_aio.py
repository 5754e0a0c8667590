"""tritonclient over gRPC with asyncio: the same calls, many at once, and a stream."""

import asyncio
import json
import os
from importlib.metadata import version as installed

import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

ADDRESS = os.environ["MILLRACE_GRPC"]
MODEL = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])
LABELS = json.loads(os.environ["MILLRACE_LABELS"])
HEADERS = {"authorization": f"Bearer {os.environ['MILLRACE_KEY']}"}


def report(call, result="works"):
    row = {"client": "tritonclient[grpc].aio", "version": installed("tritonclient"), "call": call, "result": result}
    print(json.dumps(row), flush=True)


async def error_of(pending):
    try:
        await pending
    except InferenceServerException as error:
        return error
    raise AssertionError("it was not refused")


async def refused(call, words, pending, status="INVALID_ARGUMENT"):
    error = await error_of(pending)
    assert error.status() == f"StatusCode.{status}", error
    assert words in error.message(), error.message()
    report(call, f"refused: [{status}] {words}")


def text(texts):
    array = np.array([one.encode() for one in texts], dtype=np.object_)
    return triton.InferInput("text", [len(texts)], "BYTES").set_data_from_numpy(array)


def outputs(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def check_labels(result, count):
    labels, scores = result.as_numpy("label"), result.as_numpy("score")
    assert labels.shape == scores.shape == (count,)
    assert {label.decode() for label in labels} <= set(LABELS)


async def reading(client):
    assert await client.is_server_live()
    assert await client.is_server_ready()
    report("is_server_live, is_server_ready, without a key")
    assert await client.is_model_ready(MODEL, headers=HEADERS)
    assert not await client.is_model_ready(MODEL, "999", headers=HEADERS)
    report("is_model_ready")
    assert (await client.get_server_metadata(headers=HEADERS)).name == "millrace"
    model = await client.get_model_metadata(MODEL, headers=HEADERS)
    assert [output.name for output in model.outputs] == ["label", "score", "labels", "scores", "embedding"]
    assert (await client.get_model_config(MODEL, headers=HEADERS)).config.max_batch_size == 64
    report("get_server_metadata, get_model_metadata, get_model_config")
    return model.versions[-1]


async def infer(client):
    requested = outputs("label", "score", "labels", "scores", "embedding")
    result = await client.infer(MODEL, [text(TEXTS[:2])], outputs=requested, headers=HEADERS, client_timeout=20)
    check_labels(result, 2)
    assert result.as_numpy("scores").shape == (2, len(LABELS))
    assert np.allclose(np.linalg.norm(result.as_numpy("embedding"), axis=1), 1, atol=1e-4)
    report("infer, every output")
    results = await asyncio.gather(
        *(
            client.infer(MODEL, [text([one])], request_id=f"g-{position}", headers=HEADERS)
            for position, one in enumerate(TEXTS)
        )
    )
    assert [result.get_response().id for result in results] == [f"g-{position}" for position in range(len(TEXTS))]
    report("infer, many at once")


async def streaming(client):
    async def requests():
        for position, one in enumerate(TEXTS):
            yield {"model_name": MODEL, "inputs": [text([one])], "request_id": f"s-{position}"}
        yield {"model_name": MODEL, "inputs": [text(["a"] * 65)], "request_id": "too-many"}

    answers = [pair async for pair in client.stream_infer(requests(), headers=HEADERS, stream_timeout=60)]
    *good, (_, error) = answers
    assert [result.get_response().id for result, _ in good] == [f"s-{position}" for position in range(len(TEXTS))]
    assert "inputs[0].shape" in error.message()
    report("stream_infer: in order, errors within the stream")


async def repository(client, number):
    (counted,) = (await client.get_inference_statistics(MODEL, number, headers=HEADERS)).model_stats
    assert counted.inference_stats.success.count > 0
    report("get_inference_statistics")
    index = (await client.get_model_repository_index(headers=HEADERS)).models
    assert (MODEL, number, "READY") in [(one.name, one.version, one.state) for one in index]
    report("get_model_repository_index")
    await client.load_model(MODEL, headers=HEADERS)
    report("load_model of what is served")


async def errors(client):
    unknown, key = "No deployment is named 'nobody'", "A valid API key is needed"
    pending = client.unload_model("nobody", headers=HEADERS)
    await refused("unload_model of an unknown model", unknown, pending, "NOT_FOUND")
    await refused("infer without a key", key, client.infer(MODEL, [text(["a"])]), "UNAUTHENTICATED")
    pending = client.infer("nobody", [text(["a"])], headers=HEADERS)
    await refused("infer by an unknown model", unknown, pending, "NOT_FOUND")
    pending = client.infer(MODEL, [text(["a"] * 65)], headers=HEADERS)
    await refused("infer of 65 texts", "The field 'inputs[0].shape' is not valid", pending)
    pending = client.get_log_settings(headers=HEADERS)
    await refused("get_log_settings", "extension for log settings is not offered", pending, "UNIMPLEMENTED")


async def main():
    async with triton.InferenceServerClient(ADDRESS) as client:
        number = await reading(client)
        await infer(client)
        await streaming(client)
        await repository(client, number)
        await errors(client)


asyncio.run(main())
