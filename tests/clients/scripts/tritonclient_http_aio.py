"""tritonclient over HTTP with asyncio: the same calls, many at once."""

import asyncio
import json
import os
from importlib.metadata import version as installed

import numpy as np
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

ADDRESS = os.environ["MILLRACE_REST"].removeprefix("http://")
MODEL = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])
LABELS = json.loads(os.environ["MILLRACE_LABELS"])
HEADERS = {"authorization": f"Bearer {os.environ['MILLRACE_KEY']}"}


def report(call, result="works"):
    row = {"client": "tritonclient[http].aio", "version": installed("tritonclient"), "call": call, "result": result}
    print(json.dumps(row), flush=True)


async def error_of(pending):
    try:
        await pending
    except InferenceServerException as error:
        return error
    raise AssertionError("it was not refused")


async def refused(call, words, pending, status="400"):
    error = await error_of(pending)
    assert error.status() == status, error
    assert words in error.message(), error.message()
    report(call, f"refused: [{status}] {words}")


def text(texts, binary=True):
    array = np.array([one.encode() for one in texts], dtype=np.object_)
    return triton.InferInput("text", [len(texts)], "BYTES").set_data_from_numpy(array, binary_data=binary)


def outputs(*names, binary=True):
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def check_labels(result, count):
    labels, scores = result.as_numpy("label"), result.as_numpy("score")
    assert labels.shape == scores.shape == (count,)
    assert {label.decode() if isinstance(label, bytes) else label for label in labels} <= set(LABELS)


async def reading(client):
    assert await client.is_server_live()
    assert await client.is_server_ready()
    report("is_server_live, is_server_ready, without a key")
    assert await client.is_model_ready(MODEL, headers=HEADERS)
    assert not await client.is_model_ready(MODEL, "999", headers=HEADERS)
    report("is_model_ready")
    assert (await client.get_server_metadata(headers=HEADERS))["name"] == "millrace"
    model = await client.get_model_metadata(MODEL, headers=HEADERS)
    assert [output["name"] for output in model["outputs"]] == ["label", "score", "labels", "scores", "embedding"]
    assert (await client.get_model_config(MODEL, headers=HEADERS))["max_batch_size"] == 64
    report("get_server_metadata, get_model_metadata, get_model_config")
    return model["versions"][-1]


async def infer(client):
    check_labels(await client.infer(MODEL, [text(TEXTS[:2])], headers=dict(HEADERS)), 2)
    report("infer, binary tensors")
    requested = outputs("label", "score", binary=False)
    check_labels(await client.infer(MODEL, [text(TEXTS[:2], False)], outputs=requested, headers=dict(HEADERS)), 2)
    report("infer, JSON tensors")
    for way in ("gzip", "deflate"):
        result = await client.infer(
            MODEL,
            [text((TEXTS * 6)[:64])],
            outputs=outputs("label", "score", "labels", "scores", "embedding"),
            headers=dict(HEADERS),
            request_compression_algorithm=way,
            response_compression_algorithm=way,
        )
        check_labels(result, 64)
        assert result.as_numpy("labels").shape == (64, len(LABELS))
        assert np.allclose(np.linalg.norm(result.as_numpy("embedding"), axis=1), 1, atol=1e-4)
        report(f"infer of 64 texts, {way} both ways")
    results = await asyncio.gather(
        *(
            client.infer(MODEL, [text([one])], request_id=f"g-{position}", headers=dict(HEADERS))
            for position, one in enumerate(TEXTS)
        )
    )
    assert [result.get_response()["id"] for result in results] == [f"g-{position}" for position in range(len(TEXTS))]
    report("infer, many at once")


async def repository(client, number):
    (counted,) = (await client.get_inference_statistics(MODEL, number, headers=HEADERS))["model_stats"]
    assert counted["inference_stats"]["success"]["count"] > 0
    report("get_inference_statistics")
    index = await client.get_model_repository_index(headers=HEADERS)
    assert {"name": MODEL, "version": number, "state": "READY", "reason": ""} in index
    report("get_model_repository_index")
    await client.load_model(MODEL, headers=HEADERS)
    report("load_model of what is served")


async def errors(client):
    unknown, key = "No deployment is named 'nobody'", "A valid API key is needed"
    await refused("unload_model of an unknown model", unknown, client.unload_model("nobody", headers=HEADERS), "404")
    await refused("infer without a key", key, client.infer(MODEL, [text(["a"])]), "401")
    pending = client.infer("nobody", [text(["a"])], headers=dict(HEADERS))
    await refused("infer by an unknown model", unknown, pending, "404")
    pending = client.infer(MODEL, [text(["a"] * 65)], headers=dict(HEADERS))
    await refused("infer of 65 texts", "The field 'inputs[0].shape' is not valid", pending)
    pending = client.get_log_settings(headers=HEADERS)
    await refused("get_log_settings", "extension for log settings is not offered", pending, "501")


async def main():
    async with triton.InferenceServerClient(ADDRESS) as client:
        number = await reading(client)
        await infer(client)
        await repository(client, number)
        await errors(client)


asyncio.run(main())
