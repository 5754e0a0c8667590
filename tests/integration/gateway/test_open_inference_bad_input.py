"""What strangers and broken clients send to the doors of the Open Inference Protocol."""

import gzip
import json
import re
import zlib
from typing import Any, Final

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.contracts.access import OIP_NOT_OFFERED, OPEN_METHODS
from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.inbound.oip.grpc import SERVICE
from services.gateway.inbound.oip.tensors import pack_strings
from services.kit.transport.rpc import MAX_MESSAGE_BYTES
from tests.fixtures.rest_routes import OPEN_INFERENCE_ROUTES, is_keyless, verb_of
from tests.integration.gateway.gateway import GatewayUnderTest, target

INFER: Final = "/v2/models/news/infer"
TEXT: Final[dict[str, Any]] = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
OCTETS: Final = {"content-type": "application/octet-stream"}


def words_of(reply: httpx.Response) -> str:
    """The one shape of an error; fails the test when the body is anything else, or tells of the inside."""
    body = reply.json()
    assert set(body) == {"error"}
    assert not re.search(r"Traceback|\.py|/root|/home|services\.|millrace\.v1", reply.text)
    words = body["error"]
    assert isinstance(words, str), "tritonclient raises TypeError of its own otherwise"
    return words


async def serving(gateway: GatewayUnderTest) -> None:
    await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)


async def test_every_path_but_health_asks_for_a_key(gateway: GatewayUnderTest) -> None:
    endpoints = [
        (verb_of(route), re.sub(r"{\w+}", "news", route.path))
        for route in OPEN_INFERENCE_ROUTES
        if not is_keyless(route)
    ]
    more = [("GET", "/v2/nothing"), ("DELETE", "/v2/models/news"), ("POST", "/v2/health/ready"), ("GET", "/v2/logging")]
    async with httpx.AsyncClient(base_url=f"http://{gateway.rest}") as stranger:
        for verb, path in [*endpoints, *more]:
            for key in (None, "Bearer wrong", "Basic abc", "Bearer mr_00000000_x"):
                reply = await stranger.request(verb, path, headers={"authorization": key} if key else {})
                assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer"), (verb, path, key)
                assert "A valid API key is needed" in words_of(reply)


async def test_every_grpc_method_but_health_asks_for_a_key(gateway: GatewayUnderTest) -> None:
    for name in [*(method.name for method in SERVICE.methods), *OIP_NOT_OFFERED]:
        call: Any = gateway.channel.unary_unary(f"/{SERVICE.full_name}/{name}")
        if f"/{SERVICE.full_name}/{name}" in OPEN_METHODS:
            await call(b"")
            continue
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"")
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, name


async def test_health_answers_nothing_but_health(gateway: GatewayUnderTest) -> None:
    async with httpx.AsyncClient(base_url=f"http://{gateway.rest}") as stranger:
        for path in ("/v2/health/live/", "/v2/health/live/x", "/v2/health", "/v2/health/../models/stats"):
            assert (await stranger.get(path)).status_code in (401, 400), path
    assert (await gateway.client.post("/v2/health/live")).status_code == 405


async def test_reflection_and_health_know_the_service(gateway: GatewayUnderTest) -> None:
    health: Any = health_pb2_grpc.HealthStub(gateway.channel)
    response = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE.full_name))
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    make_stub: Any = reflection_pb2_grpc.ServerReflectionStub
    reflection = make_stub(gateway.channel)
    request = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE.full_name),
    ]
    listed, match = [one async for one in reflection.ServerReflectionInfo(iter(request), metadata=gateway.metadata)]
    assert SERVICE.full_name in {service.name for service in listed.list_services_response.service}
    assert b"ModelStreamInfer" in match.file_descriptor_response.file_descriptor_proto[0]


BAD_BODIES: Final = [
    (b"", "inputs"),
    (b"{", "the body is not JSON"),
    (b"[]", "the body must be a JSON object"),
    (b"[" * 100_000, "the body is not JSON"),
    (b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the body is not JSON"),
    (b'{"inputs": NaN}', "the body is not JSON"),
    (b'{"inputs": ["\xff"]}', "the body is not JSON"),
    (b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["\\ud800"]}]}', "not JSON"),
    (json.dumps({"inputs": [{**TEXT, "data": ["a\0b"]}]}).encode(), "NUL"),
    (json.dumps({"inputs": [{**TEXT, "data": [" "]}]}).encode(), "texts[0]"),
    (json.dumps({"inputs": [{**TEXT, "data": ["a" * 10_001]}]}).encode(), "10001 characters"),
    (json.dumps({"inputs": [{**TEXT, "shape": [65], "data": ["a"] * 65}]}).encode(), "send 1 to 64 texts"),
    (json.dumps({"inputs": [{**TEXT, "shape": [2**63 - 1]}]}).encode(), "inputs[0].shape"),
    (json.dumps({"inputs": [{**TEXT, "shape": [2**80]}]}).encode(), "inputs[0].shape"),
    (json.dumps({"inputs": [TEXT], "parameters": {"sequence_id": 1}}).encode(), "parameters.sequence_id"),
    (json.dumps({"inputs": [TEXT], "parameters": {"sticky_key": "a\nb"}}).encode(), "control characters"),
    (json.dumps({"inputs": [TEXT], "role": "admin"}).encode(), "role"),
]


async def test_a_bad_inference_is_400_and_names_what_is_wrong(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    for body, words in BAD_BODIES:
        for headers in (OCTETS, {"content-type": "application/json"}, {}):
            reply = await gateway.client.post(INFER, content=body, headers=headers)
            assert reply.status_code == 400, (body[:80], reply.text)
            assert words in words_of(reply), (body[:80], reply.text)


async def test_size_media_and_compression_are_limited(gateway: GatewayUnderTest) -> None:
    huge = await gateway.client.post(INFER, content=b"x" * 1_048_577, headers=OCTETS)
    assert (huge.status_code, "larger than the limit" in words_of(huge)) == (413, True)
    spaces = b'{"inputs": [' + b" " * 50_000_000 + b"]}"
    for way, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        headers = {**OCTETS, "content-encoding": way}
        assert (await gateway.client.post(INFER, content=pack(spaces, 9), headers=headers)).status_code == 413
        truncated = pack(json.dumps({"inputs": [TEXT]}).encode())[:-3]
        assert "cut short" in words_of(await gateway.client.post(INFER, content=truncated, headers=headers))
        assert (await gateway.client.post(INFER, content=b"no " + way.encode(), headers=headers)).status_code == 400
    reply = await gateway.client.post(INFER, content=b"x", headers={**OCTETS, "content-encoding": "br"})
    assert reply.status_code == 415
    for media in ("application/x-pickle", "application/vnd.ms-tensor", "application/x-npy", "multipart/form-data"):
        reply = await gateway.client.post(INFER, content=b"x", headers={"content-type": media})
        assert (reply.status_code, media in words_of(reply)) == (415, True)


async def test_names_and_versions_that_are_none_are_refused(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    for name in ("..%2f..%2fetc", "%252e%252e", "a%00b", "A", "-a", "a" * 64, "%ff", "a%20b"):
        for verb, path in (("GET", ""), ("GET", "/ready"), ("GET", "/config"), ("GET", "/stats"), ("POST", "/infer")):
            reply = await gateway.client.request(verb, f"/v2/models/{name}{path}", json={} if verb == "POST" else None)
            assert reply.status_code == 400, (name, path, reply.text)
        for verb in ("load", "unload"):
            assert (await gateway.client.post(f"/v2/repository/models/{name}/{verb}")).status_code == 400
    for version in ("0", "-1", "01", "1e3", "latest", "@champion", "4294967296", "9" * 40, "%D9%A3", "1.0"):
        for path in ("", "/ready", "/config", "/stats"):
            reply = await gateway.client.get(f"/v2/models/news/versions/{version}{path}")
            assert (reply.status_code, "model_version" in words_of(reply)) == (400, True), (version, path)
    for path, status in (("9", 404), ("9/config", 404), ("9/stats", 404), ("9/ready", 400)):
        assert (await gateway.client.get(f"/v2/models/news/versions/{path}")).status_code == status
    for path in ("nobody", "nobody/ready", "nobody/config", "nobody/stats"):
        reply = await gateway.client.get(f"/v2/models/{path}")
        assert (reply.status_code, "No deployment is named 'nobody'" in words_of(reply)) == (404, True)


async def test_what_is_not_offered_says_so(gateway: GatewayUnderTest) -> None:
    for verb, path in (
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/a/register"),
        ("POST", "/v2/cudasharedmemory/unregister"),
        ("GET", "/v2/models/news/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/logging"),
    ):
        reply = await gateway.client.request(verb, path)
        assert (reply.status_code, "is not offered here" in words_of(reply)) == (501, True), path
    for name in OIP_NOT_OFFERED:
        call: Any = gateway.channel.unary_unary(f"/{SERVICE.full_name}/{name}")
        with pytest.raises(grpc.aio.AioRpcError, match="is not offered here") as refused:
            await call(b"", metadata=gateway.metadata)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_foreign_page_reaches_no_model(gateway: GatewayUnderTest) -> None:
    reply = await gateway.client.get("/v2/models/stats", headers={"origin": "https://evil.example"})
    assert (reply.status_code, "evil.example" in words_of(reply)) == (403, True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"ready": "yes"}, "ready"),
        ({"ready": 1}, "ready"),
        ({"repository_name": "other"}, "repository_name"),
    ],
)
async def test_a_bad_index_request_names_its_field(gateway: GatewayUnderTest, body: dict[str, Any], words: str) -> None:
    reply = await gateway.client.post("/v2/repository/index", json=body)
    assert (reply.status_code, words in words_of(reply)) == (400, True)


async def test_a_bad_load_names_its_field_and_reaches_no_registry(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    for body, words in (
        ({"parameters": {"config": "{}"}}, "parameters.config"),
        ({"parameters": {"file:1/model.onnx": "AAAA"}}, "parameters.file:1/model.onnx"),
        ({"parameters": {"version": "-1"}}, "parameters.version"),
        ({"parameters": []}, "parameters"),
        ({"tenant": "other"}, "tenant"),
    ):
        reply = await gateway.client.post("/v2/repository/models/news/load", json=body)
        assert (reply.status_code, words in words_of(reply)) == (400, True), body
    reply = await gateway.client.post("/v2/repository/models/news/unload", json={"parameters": {"force": True}})
    assert (reply.status_code, "parameters.force" in words_of(reply)) == (400, True)
    assert gateway.registry.moved == []


def given(*shape: int, **changes: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=shape)
    fields: dict[str, Any] = {"inputs": [tensor], "raw_input_contents": [pack_strings(["a"])]}
    return pb.ModelInferRequest(**{"model_name": "news", **fields, **changes})


BAD_REQUESTS: Final = [
    (given(1, model_name="nobody"), grpc.StatusCode.NOT_FOUND, "deployment"),
    (given(1, model_version="9"), grpc.StatusCode.NOT_FOUND, "version"),
    (given(1, model_name="../x"), grpc.StatusCode.INVALID_ARGUMENT, "model_name"),
    (given(1, model_version="latest"), grpc.StatusCode.INVALID_ARGUMENT, "model_version"),
    (given(2), grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents[0]"),
    (given(-1), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
    (given(2**63 - 1, 2**63 - 1), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
    (given(1, raw_input_contents=[b"\xff\xff\xff\xff"]), grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents[0]"),
    (given(1, raw_input_contents=[pack_strings([" "])]), grpc.StatusCode.INVALID_ARGUMENT, "texts[0]"),
    (given(1, id="a b"), grpc.StatusCode.INVALID_ARGUMENT, "id"),
    (pb.ModelInferRequest(model_name="news"), grpc.StatusCode.INVALID_ARGUMENT, "inputs"),
]


async def test_a_grpc_refusal_carries_its_field_in_the_rich_details(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    infer = gateway.rpc_method(SERVICE, "ModelInfer")
    for request, code, field in BAD_REQUESTS:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await infer(request)
        details = dict(refused.value.trailing_metadata() or ())["grpc-status-details-bin"]
        bad = error_details_pb2.BadRequest()
        packed = [detail for detail in status_pb2.Status.FromString(details).details if detail.Unpack(bad)]
        assert (refused.value.code(), len(packed)) == (code, 1), request
        assert bad.field_violations[0].field == field


async def test_a_message_beyond_the_limit_is_refused_before_it_is_read(gateway: GatewayUnderTest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.rpc_method(SERVICE, "ModelInfer")(given(1, raw_input_contents=[b"\0" * MAX_MESSAGE_BYTES]))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_another_repository_than_the_one_there_is_is_refused(gateway: GatewayUnderTest) -> None:
    for method, kind in (
        ("RepositoryIndex", pb.RepositoryIndexRequest),
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.rpc_method(SERVICE, method)(kind(repository_name="other"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
