"""`/v1` of a running gateway, as the bytes that OpenAI's clients exchange with it."""

import base64
import json
import random
from array import array
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from services.contracts.events import Role
from services.contracts.rpc import replica_pb2
from tests.integration.gateway.gateway import (
    EMBEDDING,
    GatewayUnderTest,
    ReplicaCall,
    answered,
    open_gateway,
    refuse_with,
    target,
)

EMBEDDINGS: Final = "/v1/embeddings"


async def serving(gateway: GatewayUnderTest) -> None:
    await gateway.replica("replica-1", 1, 2)
    await gateway.deploy(target(1), target(2, Role.CANARY, 0))
    await gateway.serves(1)


async def embed(gateway: GatewayUnderTest, **body: Any) -> httpx.Response:
    return await gateway.client.post(EMBEDDINGS, json={"model": "news", "input": "a text", **body})


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The shape of an error that OpenAI's SDK reads; fails the test when it is anything else."""
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"].startswith("req-")
    error: dict[str, Any] = body["error"]
    return error


async def test_models_are_deployments_and_their_versions(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    listed = (await gateway.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["news", "news@1", "news@2"]
    assert {(model["object"], model["owned_by"]) for model in listed["data"]} == {("model", "millrace")}
    assert all(model["created"] > 1_700_000_000 for model in listed["data"])
    for path in ("news", "news@2", "news%402"):
        reply = await gateway.client.get(f"/v1/models/{path}")
        assert reply.json() == listed["data"][0 if path == "news" else 2]
    for path in ("other", "news@7", "news@0", "news@x", "News", "news@1@2"):
        reply = await gateway.client.get(f"/v1/models/{path}")
        assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found"), path
        assert reply.headers["x-should-retry"] == "false"


async def test_embeddings_come_as_floats_or_as_base64_of_little_endian_float32(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    response = (await embed(gateway)).json()
    assert response["data"] == [{"object": "embedding", "index": 0, "embedding": pytest.approx(list(EMBEDDING))}]
    assert (response["object"], response["model"]) == ("list", "news@1")
    assert response["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    reply = await embed(gateway, input=["a", "b"], encoding_format="base64", user="someone", dimensions=None)
    unpacked = [array("f", base64.b64decode(part["embedding"])) for part in reply.json()["data"]]
    assert [list(values) for values in unpacked] == [pytest.approx(list(EMBEDDING))] * 2
    assert reply.headers["x-millrace-version"] == "1"
    assert reply.headers["x-request-id"].startswith("req-")
    pinned = await embed(gateway, model="news@2", dimensions=2)
    assert pinned.json()["model"] == "news@2"
    assert pinned.json()["data"][0]["embedding"] == [0.0, 1.0]
    seen = gateway.replicas[0].seen
    assert all(request.message.whole_texts for request in seen if request.task == "embedding")


async def test_a_batch_of_the_largest_size_is_answered_in_order(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    random.seed(7)

    async def number(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        return answered(request, [[float(text), 1.0] for text in request.texts], tokens=len(request.texts))

    gateway.replicas[0].behaviours[1] = number
    response = (await embed(gateway, input=[str(gateway) for gateway in range(2048)])).json()
    assert [part["embedding"][0] for part in response["data"]] == list(range(2048))
    assert [part["index"] for part in response["data"]] == list(range(2048))
    assert response["usage"]["total_tokens"] == 2048


BAD: Final[list[tuple[dict[str, Any], str | None, str]]] = [
    ({"input": ""}, "input", "invalid_value"),
    ({"input": ["a", " "]}, "input[1]", "invalid_value"),
    ({"input": []}, "input", "invalid_value"),
    ({"input": None}, "input", "invalid_value"),
    ({"input": {"a": 1}}, "input", "invalid_value"),
    ({"input": ["a", None]}, "input", "invalid_value"),
    ({"input": [True]}, "input", "invalid_value"),
    ({"input": ["a"] * 2049}, "input", "invalid_value"),
    ({"input": [1, 2]}, "input", "tokens_not_text"),
    ({"input": [[1], [2]]}, "input", "tokens_not_text"),
    ({"input": ["a", "x" * 10_001]}, "input[1]", "context_length_exceeded"),
    ({"input": "a\0b"}, "input", "invalid_request"),
    ({"model": None}, "model", "invalid_value"),
    ({"model": 7}, "model", "invalid_value"),
    ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
    ({"encoding_format": 1}, "encoding_format", "invalid_value"),
    ({"dimensions": 0}, "dimensions", "invalid_value"),
    ({"dimensions": -1}, "dimensions", "invalid_value"),
    ({"dimensions": 1.5}, "dimensions", "invalid_value"),
    ({"dimensions": True}, "dimensions", "invalid_value"),
    ({"dimensions": 4}, "dimensions", "too_many_dimensions"),
    ({"user": 7}, "user", "invalid_value"),
    ({"user": "u" * 201}, "user", "invalid_value"),
    ({"user": "a\nb"}, "user", "invalid_value"),
    ({"role": "admin"}, "role", "invalid_value"),
]


async def test_a_bad_request_is_400_and_names_its_parameter(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    for body, param, code in BAD:
        reply = await embed(gateway, **body)
        error = error_of(reply)
        response = (reply.status_code, error["type"], error["param"], error["code"])
        assert response == (400, "invalid_request_error", param, code), body
        assert reply.headers["x-should-retry"] == "false"
    tokens = error_of(await embed(gateway, input=[[1, 2]]))
    assert "check_embedding_ctx_length=False" in tokens["message"]
    for content in (b"{", b"[]", b"\xff", b"[" * 100_000):
        reply = await gateway.client.post(EMBEDDINGS, content=content, headers={"content-type": "application/json"})
        assert (reply.status_code, error_of(reply)["param"]) == (400, None)


async def test_every_path_asks_for_a_key(gateway: GatewayUnderTest) -> None:
    for verb in ("GET", "POST", "DELETE"):
        for path in ("/v1/models", "/v1/models/news", EMBEDDINGS, "/v1/nothing", "/v1"):
            for key in ("", "Bearer sk-wrong", "Basic abc"):
                reply = await gateway.client.request(verb, path, headers={"authorization": key})
                assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key"), (verb, path)


async def test_every_refusal_has_the_status_and_the_code_that_clients_know(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    stranger = await gateway.client.get("/v1/models", headers={"authorization": "Bearer sk-wrong"})
    assert (stranger.status_code, error_of(stranger)["code"]) == (401, "invalid_api_key")
    assert "Incorrect API key provided" in error_of(stranger)["message"]  # LiteLLM knows it by that
    unknown = await embed(gateway, model="text-embedding-3-small")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
    assert "'text-embedding-3-small' does not exist" in error_of(unknown)["message"]
    replica = gateway.replicas[0]
    replica.behaviours[1] = refuse_with("overloaded", "queue_full")
    full = await embed(gateway)
    assert (full.status_code, error_of(full)["code"], full.headers["retry-after"]) == (429, "rate_limit_exceeded", "1")
    assert "x-should-retry" not in full.headers
    replica.behaviours[1] = refuse_with("too_large", "context_length_exceeded")
    long = await embed(gateway)
    assert (long.status_code, error_of(long)["code"]) == (400, "context_length_exceeded")
    assert error_of(long)["param"] == "input"
    replica.behaviours[1] = refuse_with("conflict")
    conflict = await embed(gateway)
    assert (conflict.status_code, conflict.headers["x-should-retry"]) == (409, "false")
    foreign = await gateway.client.get("/v1/models", headers={"host": "evil.example"})
    assert (foreign.status_code, error_of(foreign)["param"]) == (403, None)


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1/chat"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/files"),
        ("GET", "/v1"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/a/b"),
        ("POST", "/v1/embeddings/"),
    ],
)
async def test_a_path_that_is_not_built_is_404_in_the_same_shape(
    gateway: GatewayUnderTest, verb: str, path: str
) -> None:
    reply = await gateway.client.request(verb, path)
    assert (reply.status_code, error_of(reply)["code"]) == (404, "unknown_url")
    assert reply.headers["x-should-retry"] == "false"


async def test_a_wrong_method_is_405_and_says_which_is_right(gateway: GatewayUnderTest) -> None:
    for verb, path, allowed in (
        ("GET", EMBEDDINGS, "POST"),
        ("DELETE", "/v1/models/news", "GET"),
        ("POST", "/v1/models", "GET"),
    ):
        reply = await gateway.client.request(verb, path)
        assert (reply.status_code, error_of(reply)["code"]) == (405, "method_not_supported")
        assert reply.headers["allow"] == allowed


async def test_a_body_has_the_batches_limit_and_the_clients_timeout_is_known(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, batch_body_limit_bytes=2_000_000) as gateway:
        await serving(gateway)
        large = json.dumps({"model": "news", "input": ["x" * 6_000] * 250})
        kind = {"content-type": "application/json"}
        assert (await gateway.client.post(EMBEDDINGS, content=large, headers=kind)).status_code == 200
        larger = await gateway.client.post(EMBEDDINGS, content=large + " " * 1_000_000, headers=kind)
        assert (larger.status_code, error_of(larger)["code"]) == (413, "body_too_large")
        for response, least, most in (
            ("5", 4000, 5000),
            ("600", 20_000, 30_000),
            ("nan", 20_000, 30_000),
            ("", 20_000, 30_000),
        ):
            await gateway.client.post(
                EMBEDDINGS, json={"model": "news", "input": "a"}, headers={"x-stainless-read-timeout": response}
            )
            assert least < gateway.replicas[0].seen[-1].deadline_ms <= most, response


async def test_a_traced_caller_gets_a_span_and_others_only_their_share(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    body = {"model": "news", "input": "a"}
    reply = await gateway.client.post(EMBEDDINGS, json=body, headers={"traceparent": trace})
    (span,) = gateway.ended_spans("POST /v1/embeddings")
    assert (span.attributes or {})["http.response.status_code"] == 200
    assert reply.headers["traceparent"].startswith("00-" + "ab" * 16)
    assert gateway.replicas[0].seen[-1].traceparent == reply.headers["traceparent"]
    bad = await gateway.client.post(EMBEDDINGS, json={**body, "input": ""}, headers={"traceparent": trace})
    assert bad.status_code == 400
    refused = gateway.ended_spans("POST /v1/embeddings")[-1]
    assert (refused.attributes or {})["http.response.status_code"] == 400
