"""What strangers and broken clients send to the REST and gRPC doors."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest

from services.contracts.rpc import gateway_pb2, inference_pb2
from services.gateway.inbound.grpc_services import BATCHES, GATEWAY, INFERENCE, MONITOR, REGISTRY, TRAINER
from tests.fixtures.rest_routes import CONTROL_ROUTES, verb_of
from tests.integration.gateway.gateway import GatewayUnderTest, open_gateway
from tests.waiting import LIMIT_SECONDS

CLASSIFY = "/api/v1/deployments/news/classify"
DATASET = {"dataset": "d", "uri": "file:///data/d.jsonl", "model": "news"}


def example(path: str) -> str:
    return re.sub(r"{\w+}", "news", path)


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The one shape of an error; fails the test when the body is anything else, or tells of the inside."""
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) <= {"code", "message", "field", "hint", "retry_after_seconds"}
    assert not re.search(r"Traceback|\.py|/root|/home|services\.|millrace\.v1", reply.text)
    error: dict[str, Any] = body["error"]
    return error


async def test_every_route_and_method_asks_for_a_key(gateway: GatewayUnderTest) -> None:
    endpoints = [(verb_of(route), example(route.path)) for route in CONTROL_ROUTES] + [
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
    ]
    for verb, path in [*endpoints, ("GET", "/nothing"), ("DELETE", "/api/v1/models")]:
        for key in (None, "Bearer wrong", "Basic abc", "Bearer mr_00000000_x"):
            headers = {"authorization": key} if key else {}
            reply = await _bare(gateway, verb, path, headers=headers)
            assert (reply.status_code, error_of(reply)["code"]) == (401, "unauthenticated"), (verb, path, key)
    for path in ("/healthz", "/readyz"):
        assert (await _bare(gateway, "GET", path)).status_code == 200


async def _bare(gateway: GatewayUnderTest, verb: str, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://{gateway.rest}") as client:
        return await client.request(verb, path, **options)


async def test_every_grpc_method_asks_for_a_key(gateway: GatewayUnderTest) -> None:
    for service in (GATEWAY, BATCHES, INFERENCE, REGISTRY, TRAINER, MONITOR):
        for method in service.methods:
            call: Any = gateway.channel.unary_unary(f"/{service.full_name}/{method.name}")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"")
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_unknown_paths_and_methods_are_distinct_errors(gateway: GatewayUnderTest) -> None:
    unknown = await gateway.client.get("/api/v1/nothing")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "unknown_route")
    wrong = await gateway.client.delete("/api/v1/models")
    assert (wrong.status_code, error_of(wrong)["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "GET")
    assert (await gateway.client.get(CLASSIFY)).status_code == 405
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        wrong = await gateway.client.post(path)
        assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
        assert wrong.headers["allow"].startswith("GET")


BAD_CLASSIFICATIONS: Final = [
    (b"{", 400, "body"),
    (b"[" * 100_000, 400, "body"),
    (b'{"texts":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "body"),
    (b"[]", 400, "body"),
    (b'{"texts": ["\xff"]}', 400, "body"),
    (b'{"texts": ["a\\u0000b"]}', 400, "texts[0]"),
    (b'{"texts": ["\\ud800"]}', 400, "body"),
    (b'{"texts": NaN}', 400, "body"),
    (b"", 422, "texts"),
    (b"{}", 422, "texts"),
    (b'{"texts": []}', 422, "texts"),
    (b'{"texts": "a"}', 422, "texts"),
    (b'{"texts": [1]}', 422, "texts"),
    (b'{"texts": ["a", " "]}', 422, "texts[1]"),
    (json.dumps({"texts": ["a"] * 65}).encode(), 422, "texts"),
    (json.dumps({"texts": ["a" * 10_001]}).encode(), 422, "texts[0]"),
    (b'{"texts": ["a"], "role": "admin"}', 422, "role"),
    (b'{"texts": ["a"], "version": "2"}', 422, "version"),
    (b'{"texts": ["a"], "mirrored": true}', 422, "mirrored"),
    (b'{"texts": ["a"], "whole_texts": 1}', 422, "whole_texts"),
    (b'{"texts": ["a"], "mirrored": true}', 422, "mirrored"),
    (b'{"texts": ["a"], "deployment": "other"}', 422, "deployment"),
    (b'{"texts": ["a"], "request_id": "../etc"}', 422, "request_id"),
    (b'{"texts": ["a"], "request_id": 7}', 422, "request_id"),
    (json.dumps({"texts": ["a"], "sticky_key": "k" * 201}).encode(), 422, "sticky_key"),
    (b'{"texts": ["a"], "sticky_key": "a\\nb"}', 400, "sticky_key"),
]


async def test_a_bad_classification_names_its_field(gateway: GatewayUnderTest) -> None:
    for body, status, field in BAD_CLASSIFICATIONS:
        reply = await gateway.client.post(CLASSIFY, content=body, headers={"content-type": "application/json"})
        assert (reply.status_code, error_of(reply)["field"]) == (status, field), body[:80]


async def test_size_media_and_compression_are_limited(gateway: GatewayUnderTest) -> None:
    huge = await gateway.client.post(CLASSIFY, content=b"x" * 1_048_577, headers={"content-type": "application/json"})
    assert huge.status_code == 413
    assert error_of(huge)["code"] == "body_too_large"

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65_536

    chunked = await gateway.client.post(CLASSIFY, content=endless(), headers={"content-type": "application/json"})
    assert chunked.status_code == 413
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    bomb = gzip.compress(b'{"texts": ["' + b" " * 200_000_000 + b'"]}', 9)
    assert (await gateway.client.post(CLASSIFY, content=bomb, headers=packed)).status_code == 413
    truncated = gzip.compress(b'{"texts": ["a"]}')[:-5]
    assert (await gateway.client.post(CLASSIFY, content=truncated, headers=packed)).status_code == 400
    fine = await gateway.client.post(CLASSIFY, content=gzip.compress(b'{"texts": ["a"]}'), headers=packed)
    assert error_of(fine)["code"] == "unknown_deployment"
    for media in ("application/octet-stream", "application/x-pickle", "text/plain", "application/vnd.ms-tensor"):
        reply = await gateway.client.post(CLASSIFY, content=b"x", headers={"content-type": media})
        assert (reply.status_code, error_of(reply)["field"]) == (415, "content-type")
    reply = await gateway.client.post(CLASSIFY, content=b"x", headers={**packed, "content-encoding": "br"})
    assert (reply.status_code, error_of(reply)["field"]) == (415, "content-encoding")


CLIMBING: Final = (
    "..",
    ".",
    "%2e%2e",
    "..%2f..%2fetc",
    "%252e%252e",
    "a%00b",
    "a%5c..",
    "A",
    "-a",
    "a" * 64,
    "%ff",
    "a%20b",
    "a%2fb",
)


async def test_names_that_climb_or_hide_something_are_400(gateway: GatewayUnderTest) -> None:
    for name in CLIMBING:
        for verb, path in (("GET", f"/api/v1/models/{name}"), ("POST", f"/api/v1/deployments/{name}/classify")):
            status, body = await _raw(gateway, verb, path)
            assert status == 400, (path, body)


async def _raw(
    gateway: GatewayUnderTest, verb: str, path: str, *, extra: str = "", body: bytes = b""
) -> tuple[int, bytes]:
    """Past any client that would tidy the request up."""
    host, _, port = gateway.rest.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{verb} {path} HTTP/1.1\r\nhost: {gateway.rest}\r\n{extra}"
    head += f"authorization: {gateway.metadata[0][1]}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode("latin-1") + body)
    answer = await asyncio.wait_for(reader.read(), LIMIT_SECONDS)
    writer.close()
    return int(answer.split(b" ", 2)[1]) if answer else 0, answer


async def test_conflicting_lengths_are_400(gateway: GatewayUnderTest) -> None:
    for extra in (
        "content-length: 3\r\ncontent-length: 5\r\n",
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "content-length: -1\r\n",
        "content-length: 1e3\r\n",
    ):
        status, _ = await _raw(gateway, "POST", CLASSIFY, extra=extra, body=b"abc")
        assert status == 400, extra


async def test_foreign_hosts_and_origins_are_403(gateway: GatewayUnderTest) -> None:
    for headers in (
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "evil.example:80@127.0.0.1"},
        {"host": "[::1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
    ):
        for path in ("/api/v1/models/news", "/openapi.json"):
            reply = await gateway.client.get(path, headers=headers)
            assert reply.status_code == 403, headers
            assert error_of(reply)["field"] in ("host", "origin")
    assert (await gateway.client.get("/openapi.json", headers={"origin": "http://localhost:3000"})).status_code == 200


async def test_a_slow_body_is_408(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, body_seconds=0.2) as gateway:
        extra = "content-type: application/json\r\ncontent-length: 100\r\n"
        status, body = await _raw(gateway, "POST", CLASSIFY, extra=extra, body=b'{"texts"')
        assert status == 408
        assert b"slow_body" in body


BAD_REQUESTS: Final[list[tuple[str, str, dict[str, Any] | None, str]]] = [
    ("POST", "/api/v1/datasets", {"uri": "file:///a", "model": "news"}, "dataset"),
    ("POST", "/api/v1/datasets", {**DATASET, "dataset": "Not A Name"}, "dataset"),
    ("POST", "/api/v1/datasets", {**DATASET, "uri": "/etc/passwd"}, "uri"),
    ("POST", "/api/v1/datasets", {**DATASET, "uri": "file:///data/../etc/passwd"}, "uri"),
    ("POST", "/api/v1/datasets", {**DATASET, "format": "pickle"}, "format"),
    ("POST", "/api/v1/datasets", {**DATASET, "recipe_json": '{"epochs": 1000000}'}, "recipe_json.epochs"),
    ("POST", "/api/v1/datasets", {**DATASET, "recipe_json": '{"epoch": 1}'}, "recipe_json.epoch"),
    ("POST", "/api/v1/datasets", {**DATASET, "hold_back": "yes"}, "hold_back"),
    ("POST", "/api/v1/datasets", {**DATASET, "owner": "me"}, "owner"),
    ("PUT", "/api/v1/models/news/aliases/champion", {"version": -1}, "version"),
    ("PUT", "/api/v1/models/news/aliases/champion", {"version": 2**32}, "version"),
    ("PUT", "/api/v1/models/news/aliases/champion", {"version": True}, "version"),
    ("PUT", "/api/v1/models/news/aliases/champion", {"version": 1, "alias": "other"}, "alias"),
    ("POST", "/api/v1/deployments/news/rollouts", {"version": 2}, "version"),
    (
        "POST",
        "/api/v1/deployments/news/rollouts",
        {"version": "2", "policy": {"weights": [1, "x"]}},
        "policy.weights[1]",
    ),
    ("POST", "/api/v1/deployments/news/rollouts", {"version": "2", "policy": {"unknown": 1}}, "policy.unknown"),
    ("POST", "/api/v1/deployments/news/rollouts", {"version": "2", "policy": []}, "policy"),
    ("GET", "/api/v1/models?page_size=x", None, "page.page_size"),
    ("GET", "/api/v1/models?nonsense=1", None, "nonsense"),
    ("GET", "/api/v1/models?page_size=1&page_size=2", None, "page_size"),
]


async def test_a_bad_control_request_is_422_and_names_its_field(gateway: GatewayUnderTest) -> None:
    for verb, path, body, field in BAD_REQUESTS:
        reply = await gateway.client.request(verb, path, json=body)
        assert (reply.status_code, error_of(reply)["field"]) == (422, field), (path, body)


async def test_grpc_refusals_carry_the_field_and_are_no_internal_errors(gateway: GatewayUnderTest) -> None:
    classify = gateway.rpc_method(INFERENCE, "Classify")
    for request, code in [
        (inference_pb2.ClassifyRequest(deployment="none", texts=["a"]), grpc.StatusCode.NOT_FOUND),
        (inference_pb2.ClassifyRequest(deployment="../x", texts=["a"]), grpc.StatusCode.INVALID_ARGUMENT),
        (inference_pb2.ClassifyRequest(deployment="news"), grpc.StatusCode.INVALID_ARGUMENT),
        (inference_pb2.ClassifyRequest(deployment="news", texts=["a\0"]), grpc.StatusCode.INVALID_ARGUMENT),
        (
            inference_pb2.ClassifyRequest(deployment="news", texts=["a"], mirrored=True),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await classify(request)
        assert refused.value.code() is code
    announce = gateway.rpc_method(GATEWAY, "AnnounceDataset")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await announce(gateway_pb2.AnnounceDatasetRequest(dataset="d", uri="file:///d\0", model="news"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
