"""Limits, deadlines and sizes at the gateway's own doors."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.contracts.access import KeyRole
from services.contracts.errors import Kind
from services.contracts.rpc import inference_pb2, inference_pb2_grpc, registry_pb2, replica_pb2
from services.gateway.inbound.grpc_services import INFERENCE, REGISTRY
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import KeyLimits, ensure_keys
from services.kit.identity.keys import KeyringFile, NewKey
from services.kit.transport.rpc import refusal_from
from tests.integration.gateway.gateway import GatewayUnderTest, ReplicaCall, answer_at_once, open_gateway, target, until

CLASSIFY = "/api/v1/deployments/news/classify"
BODY = {"texts": ["a text"]}


@asynccontextmanager
async def limited(home: Path, bootstrap: str, **limits: Any) -> AsyncIterator[tuple[GatewayUnderTest, dict[str, str]]]:
    """A gateway that serves, and the header of a client's key with these limits."""
    ensure_keys(home / "keys")
    new_key = NewKey(KeyRole.CLIENT, "default", limits=KeyLimits(**limits))
    _, secret = KeyringFile(home / "keys", SystemClock()).create(new_key, by="test")
    async with open_gateway(home, bootstrap) as gateway:
        await gateway.replica("replica-1", 1)
        await gateway.deploy(target(1))
        await gateway.serves(1)
        yield gateway, {"authorization": f"Bearer {secret}"}


async def test_rest_refuses_a_key_past_its_rate_with_429_and_when_to_come_back(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with limited(tmp_path, embedded_bootstrap, requests_per_second=0.2, burst=2) as (gateway, headers):
        first = await gateway.client.post(CLASSIFY, json=BODY, headers=headers)
        assert first.status_code == 200
        assert first.headers["ratelimit-policy"] == '"requests";q=2;w=10'
        assert first.headers["ratelimit"] == '"requests";r=1;t=5'
        elsewhere = await gateway.client.get("/nothing", headers=headers)
        assert (elsewhere.status_code, elsewhere.headers["ratelimit"][:14]) == (404, '"requests";r=0')
        reply = await gateway.client.post(CLASSIFY, json=BODY, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert reply.headers["retry-after"] == "5"
        assert 4 < reply.json()["error"]["retry_after_seconds"] <= 5
        assert reply.headers["ratelimit"] == '"requests";r=0;t=5'
        assert (await gateway.client.post(CLASSIFY, json=BODY)).status_code == 200, "another key is not concerned"


async def test_grpc_refuses_with_resource_exhausted_and_retry_info_forwarded_calls_too(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with limited(tmp_path, embedded_bootstrap, requests_per_second=0.2, burst=1) as (gateway, headers):
        gateway.metadata = (("authorization", headers["authorization"]),)
        classify, get = gateway.rpc_method(INFERENCE, "Classify"), gateway.rpc_method(REGISTRY, "GetModel")
        await classify(inference_pb2.ClassifyRequest(deployment="news", texts=["a"]))
        for call, request in (
            (classify, inference_pb2.ClassifyRequest(deployment="news", texts=["a"])),
            (get, registry_pb2.GetModelRequest(model="news")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(request)
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            shown = refusal_from(error.value)
            assert (shown.kind, shown.code) == (Kind.OVERLOADED, "rate_limit_exceeded")
            assert 4 < (shown.retry_after or 0) <= 5


async def test_each_message_on_a_stream_counts_and_a_refused_one_does_not_end_it(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with limited(tmp_path, embedded_bootstrap, requests_per_second=0.2, burst=3) as (gateway, headers):
        stub: Any = inference_pb2_grpc.InferenceServiceStub(gateway.channel)
        call = stub.Stream(metadata=(("authorization", headers["authorization"]),))
        responses = []
        for number in range(1, 5):
            request = inference_pb2.ClassifyRequest(deployment="news", texts=["a"])
            await call.write(inference_pb2.StreamRequest(id=number, classify=request))
            responses.append(await call.read())
        await call.done_writing()
        assert [one.WhichOneof("answer") for one in responses] == ["response", "response", "failure", "failure"]
        assert (responses[2].failure.code, responses[2].failure.kind) == ("rate_limit_exceeded", "overloaded")
        assert 4 < responses[2].failure.retry_after_seconds <= 5
        assert await call.read() is grpc.aio.EOF


async def test_requests_under_way_are_counted_over_all_endpoints_together(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with limited(tmp_path, embedded_bootstrap, concurrent=1) as (gateway, headers):
        release = asyncio.Event()

        async def answer_later(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
            await release.wait()
            return await answer_at_once(request)

        gateway.replicas[0].behaviours[1] = answer_later
        seen = len(gateway.replicas[0].seen)
        slow = asyncio.create_task(gateway.client.post(CLASSIFY, json=BODY, headers=headers))
        await until(lambda: len(gateway.replicas[0].seen) > seen, "the first is under way")
        reply = await gateway.client.get("/openapi.json", headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")
        gateway.metadata = (("authorization", headers["authorization"]),)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await gateway.rpc_method(REGISTRY, "GetModel")(registry_pb2.GetModelRequest(model="news"))
        assert refusal_from(error.value).code == "concurrency_limit_exceeded"
        release.set()
        assert (await slow).status_code == 200
        assert (await gateway.client.get("/openapi.json", headers=headers)).status_code == 200


async def test_tokens_of_rest_and_grpc_are_charged_to_one_account(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with limited(tmp_path, embedded_bootstrap, tokens_per_minute=13) as (gateway, headers):
        assert (await gateway.client.post(CLASSIFY, json=BODY, headers=headers)).json()["tokens"] == 7
        gateway.metadata = (("authorization", headers["authorization"]),)
        await gateway.rpc_method(INFERENCE, "Embed")(inference_pb2.EmbedRequest(deployment="news", texts=["a"]))
        reply = await gateway.client.post(CLASSIFY, json=BODY, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "token_limit_exceeded")
        assert 1 <= int(reply.headers["retry-after"]) <= 5


async def test_two_gateways_of_one_redis_share_a_keys_limits(
    tmp_path: Path, embedded_bootstrap: str, redis_server: str
) -> None:
    ensure_keys(tmp_path / "keys")
    new_key = NewKey(KeyRole.VIEWER, "default", limits=KeyLimits(requests_per_second=0.01, burst=3))
    _, secret = KeyringFile(tmp_path / "keys", SystemClock()).create(new_key, by="test")
    headers = {"authorization": f"Bearer {secret}"}
    async with open_gateway(tmp_path, embedded_bootstrap, redis_url=redis_server) as one:
        other_home = tmp_path / "other"
        other_home.mkdir()
        (other_home / "keys").symlink_to(tmp_path / "keys")
        async with open_gateway(other_home, embedded_bootstrap, redis_url=redis_server) as other:
            responses = [
                (await gateway.client.get("/openapi.json", headers=headers)).status_code for gateway in (one, other) * 3
            ]
    assert responses == [200] * 3 + [429] * 3


async def test_the_first_key_is_not_limited_in_anything_people_do(gateway: GatewayUnderTest) -> None:
    replies = await asyncio.gather(*(gateway.client.get("/openapi.json") for _ in range(100)))
    assert {reply.status_code for reply in replies} == {200}


# --- deadlines ----------------------------------------------------------------------------------


async def test_the_clients_time_travels_to_the_engine_and_ends_in_504(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    usual = replica.seen[-1].deadline_ms
    assert 25_000 < usual <= 30_000

    async def never(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        await asyncio.Event().wait()
        raise AssertionError

    replica.behaviours[1] = never
    began = time.monotonic()
    reply = await gateway.classify(headers={"request-timeout-ms": "300"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timed_out")
    assert 0.25 < time.monotonic() - began < 20, "the client's time counts, not the gateway's own 30 seconds"
    assert int(reply.headers["retry-after"]) >= 1
    assert 0 < replica.seen[-1].deadline_ms <= 300


async def test_a_request_whose_time_is_over_reaches_no_replica(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    seen = len(replica.seen)

    async def late() -> AsyncIterator[bytes]:
        yield b'{"texts": '
        await asyncio.sleep(0.1)
        yield b'["a text"]}'

    headers = {"request-timeout-ms": "20", "content-type": "application/json"}
    reply = await gateway.client.post(CLASSIFY, content=late(), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_passed")
    reply = await gateway.client.post("/api/v1/datasets", content=late(), headers=headers)
    assert reply.status_code in (422, 504)
    await asyncio.sleep(0.1)
    assert len(replica.seen) == seen


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "", "9999999999", "1e3"])
async def test_a_time_that_is_none_is_refused_by_name(gateway: GatewayUnderTest, given: str) -> None:
    reply = await gateway.client.get("/api/v1/models/news", headers={"request-timeout-ms": given})
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "request-timeout-ms")


async def test_a_client_cannot_have_more_than_the_gateways_own_limit(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, request_seconds=5.0) as gateway:
        replica = await gateway.replica("replica-1", 1)
        await gateway.deploy(target(1))
        await gateway.serves(1)
        await gateway.classify(headers={"request-timeout-ms": "60000"})
        assert replica.seen[-1].deadline_ms <= 5_000


# --- sizes --------------------------------------------------------------------------------------


async def test_texts_are_limited_on_grpc_as_on_rest(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, body_limit_bytes=100_000, text_limit_chars=50) as gateway:
        classify, embed = gateway.rpc_method(INFERENCE, "Classify"), gateway.rpc_method(INFERENCE, "Embed")
        for texts, code, field in (
            (["a" * 51], grpc.StatusCode.INVALID_ARGUMENT, "texts[0]"),
            (["a"] * 65, grpc.StatusCode.INVALID_ARGUMENT, "texts"),
            (["a" * 100_001], grpc.StatusCode.RESOURCE_EXHAUSTED, None),
        ):
            for call, kind in ((classify, inference_pb2.ClassifyRequest), (embed, inference_pb2.EmbedRequest)):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await call(kind(deployment="news", texts=texts))
                assert error.value.code() is code
                assert refusal_from(error.value).body().field == field
        stub: Any = inference_pb2_grpc.InferenceServiceStub(gateway.channel)
        call = stub.Stream(metadata=gateway.metadata)
        request = inference_pb2.ClassifyRequest(deployment="news", texts=["a" * 51])
        await call.write(inference_pb2.StreamRequest(id=1, classify=request))
        assert (await call.read()).failure.field == "texts[0]"
        await call.done_writing()
