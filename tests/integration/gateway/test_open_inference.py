"""The Open Inference Protocol by a running gateway: the same models by REST and by gRPC."""

import asyncio
import gzip
import json
import zlib
from array import array
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from services.contracts.events import ReplicaVersion, Role
from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.inbound.oip.grpc import SERVICE
from services.gateway.inbound.oip.tensors import pack_strings, unpack_strings
from tests.integration.gateway.gateway import (
    EMBEDDING,
    GatewayUnderTest,
    answer_at_once,
    identity,
    open_gateway,
    refuse_with,
    target,
)
from tests.integration.gateway.open_inference import INFER, call, in_grpc, infer_request, serving
from tests.waiting import LIMIT_SECONDS

TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


# --- inference


async def test_json_tensors_come_back_as_json(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    reply = await gateway.client.post(INFER, json=infer_request("a", "b", id="req-7"))
    assert reply.status_code == 200, reply.text
    assert (reply.headers["x-millrace-version"], reply.headers["content-type"]) == ("1", "application/json")
    assert reply.json() == {
        "model_name": "news",
        "model_version": "1",
        "id": "req-7",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["dev", "dev"]},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.75, 0.75]},
        ],
    }


async def test_binary_tensors_come_back_as_binary_whatever_the_body_is_packed_in(gateway: GatewayUnderTest) -> None:
    replica = await serving(gateway)
    texts = [f"text {number} " + "é" * 20 for number in range(64)]
    raw = pack_strings(texts)
    given = {"name": "text", "datatype": "BYTES", "shape": [64, 1], "parameters": {"binary_data_size": len(raw)}}
    requested = [{"name": name} for name in ("labels", "scores", "embedding")]
    head = json.dumps({"inputs": [given], "outputs": requested, "parameters": {"binary_data_output": True}}).encode()
    for way, pack, unpack in (("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)):
        headers = {
            "content-type": "application/octet-stream",
            "content-encoding": way,
            "accept-encoding": way,
            "inference-header-content-length": str(len(head)),
        }
        async with gateway.client.stream("POST", INFER, content=pack(head + raw), headers=headers) as reply:
            packed = b"".join([part async for part in reply.aiter_raw()])
        assert (reply.status_code, reply.headers["content-encoding"]) == (200, way)
        body, length = unpack(packed), int(reply.headers["inference-header-content-length"])
        response = json.loads(body[:length])
        sizes = [output["parameters"]["binary_data_size"] for output in response["outputs"]]
        assert length + sum(sizes) == len(body)
        assert unpack_strings(body[length : length + sizes[0]], 128, "labels") == ["dev", "data"] * 64
        assert array("f", body[-sizes[2] :]).tolist() == pytest.approx([*EMBEDDING] * 64)
        assert list(replica.seen[-1].texts) == texts


async def test_a_small_answer_is_not_compressed(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    reply = await gateway.client.post(INFER, json=infer_request("a"), headers={"accept-encoding": "gzip, deflate"})
    assert "content-encoding" not in reply.headers


async def test_grpc_answers_in_raw_contents(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    request = in_grpc("a", "b", outputs=("labels", "scores", "embedding"), id="req-8")
    answer = await gateway.rpc_method(SERVICE, "ModelInfer")(request)
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


async def test_a_version_a_sticky_key_and_the_ban_on_truncation_reach_the_routing_and_the_replica(
    gateway: GatewayUnderTest,
) -> None:
    replica = await gateway.replica("replica-1", 1, 2)
    await gateway.deploy(target(1, weight=50), target(2, Role.CANARY, 50))
    await gateway.serves(1)
    for version in ("1", "2"):
        reply = await gateway.client.post(f"/v2/models/news/versions/{version}/infer", json=infer_request("a"))
        assert reply.json()["model_version"] == version
        answer = await gateway.rpc_method(SERVICE, "ModelInfer")(in_grpc("a", model_version=version))
        assert answer.model_version == version
    options = {"sticky_key": "user-7", "whole_texts": True}
    replies = [await gateway.client.post(INFER, json=infer_request("a", parameters=options)) for _ in range(8)]
    assert len({reply.json()["model_version"] for reply in replies}) == 1
    assert replica.seen[-1].message.whole_texts


async def test_the_timeout_in_microseconds_is_the_deadline_and_grpcs_own_goes_on(gateway: GatewayUnderTest) -> None:
    replica = await serving(gateway)
    await gateway.client.post(INFER, json=infer_request("a", parameters={"timeout": 20_000_000}))
    assert 10_000 < replica.seen[-1].deadline_ms <= 20_000
    await gateway.rpc_method(SERVICE, "ModelInfer")(in_grpc("a"), timeout=20.0)
    assert 10_000 < replica.seen[-1].deadline_ms <= 20_100  # gRPC rounds a deadline up on its way

    async def never(request: Any) -> Any:
        await asyncio.Event().wait()

    replica.behaviours[1] = never
    reply = await gateway.client.post(INFER, json=infer_request("a", parameters={"timeout": 50_000}))
    assert reply.status_code == 504
    assert isinstance(reply.json()["error"], str)
    late = in_grpc("a", parameters={"timeout": pb.InferParameter(int64_param=50_000)})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.rpc_method(SERVICE, "ModelInfer")(late)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_answers_in_the_order_of_its_requests_and_goes_on_after_a_refusal(
    gateway: GatewayUnderTest,
) -> None:
    replica = await serving(gateway)
    first_may_answer = asyncio.Event()

    async def slow_at_first(request: Any) -> Any:
        if request.request_id == "s-0":
            await first_may_answer.wait()
        elif request.request_id == "s-9":
            first_may_answer.set()
        return await answer_at_once(request)

    replica.behaviours[1] = slow_at_first
    stream = gateway.channel.stream_stream(
        f"/{SERVICE.full_name}/ModelStreamInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    requests = [in_grpc("a", id=f"s-{number}") for number in range(10)]
    requests.insert(5, in_grpc("a", model_name="nobody", id="lost"))
    answers = [answer async for answer in stream(iter(requests), metadata=gateway.metadata)]
    assert [answer.infer_response.id for answer in answers] == [request.id for request in requests]
    assert [bool(answer.error_message) for answer in answers] == [number == 5 for number in range(11)]
    assert "No deployment is named 'nobody'" in answers[5].error_message
    assert answers[0].infer_response.parameters["triton_final_response"].bool_param


async def test_what_the_replica_refuses_reaches_the_client_in_its_words(gateway: GatewayUnderTest) -> None:
    replica = await serving(gateway)
    replica.behaviours[1] = refuse_with("invalid", "text_too_long")
    reply = await gateway.client.post(INFER, json=infer_request("a"))
    assert (reply.status_code, reply.json()) == (400, {"error": "the replica says no [texts]"})


async def test_a_traced_caller_gets_a_span_and_the_replica_its_context(gateway: GatewayUnderTest) -> None:
    replica = await serving(gateway)
    reply = await gateway.client.post(INFER, json=infer_request("a"), headers={"traceparent": TRACED})
    (span,) = gateway.ended_spans("POST /v2/models/{model}/infer")
    trace_id, span_id, parent = identity(span)
    assert (trace_id, parent) == (TRACED[3:35], TRACED[36:52])
    assert reply.headers["traceparent"] == replica.seen[-1].traceparent == f"00-{trace_id}-{span_id}-01"


async def test_an_untraced_request_has_no_span_and_an_unsampled_context(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, trace_ratio=0.0) as gateway:
        replica = await serving(gateway)
        reply = await gateway.client.post(INFER, json=infer_request("a"))
        assert gateway.ended_spans("POST /v2/models/{model}/infer") == []
        assert reply.headers["traceparent"] == replica.seen[-1].traceparent
        assert reply.headers["traceparent"].endswith("-00")


# --- what is told of models


async def test_both_transports_say_the_same_of_a_model(gateway: GatewayUnderTest) -> None:
    await gateway.replica("replica-1", 1, 2)
    await gateway.deploy(target(1), target(2, Role.CANARY, 0))
    await gateway.serves(1)
    response = (await gateway.client.get("/v2/models/news")).json()
    assert response["versions"] == ["1", "2"]
    assert response["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    over_grpc = await call(gateway, "ModelMetadata")(name="news")
    assert (list(over_grpc.versions), over_grpc.platform) == (response["versions"], response["platform"])
    assert [(one.name, one.datatype, list(one.shape)) for one in over_grpc.outputs] == [
        (one["name"], one["datatype"], one["shape"]) for one in response["outputs"]
    ]
    config = (await gateway.client.get("/v2/models/news/versions/2/config")).json()
    assert config["version_policy"] == {"specific": {"versions": [2]}}
    assert config["parameters"]["model"] == {"string_value": "news"}
    in_config = (await call(gateway, "ModelConfig")(name="news", version="2")).config
    assert (in_config.max_batch_size, list(in_config.version_policy.specific.versions)) == (64, [2])
    server = (await gateway.client.get("/v2")).json()
    assert server["name"] == (await call(gateway, "ServerMetadata")()).name == "millrace"
    assert "binary_tensor_data" in server["extensions"]


async def test_ready_is_what_a_replica_has_ready(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    await gateway.deploy(target(1), target(2, Role.CANARY, 0))
    async with asyncio.timeout(LIMIT_SECONDS):
        while len((await gateway.client.get("/v2/models/news")).json()["versions"]) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for path, status in (("", 200), ("/versions/1", 200), ("/versions/2", 400), ("/versions/9", 400)):
        reply = await gateway.client.get(f"/v2/models/news{path}/ready")
        assert (reply.status_code, reply.json()) == (status, {"name": "news", "ready": status == 200}), path
        version = path.rpartition("/")[2]
        assert (await call(gateway, "ModelReady")(name="news", version=version)).ready is (status == 200)
    assert (await gateway.client.get("/v2/models/nobody/ready")).status_code == 404


async def test_the_index_has_every_version_with_its_state_and_the_reason(gateway: GatewayUnderTest) -> None:
    replica = await serving(gateway)
    report = replica.report(1)
    failed = ReplicaVersion(deployment="news", model="news", version=2, state="failed", reason="the graph is too large")
    await gateway.publish(report.model_copy(update={"versions": [*report.versions, failed]}))
    await gateway.deploy(target(1), target(2, Role.CANARY, 0))
    entries = [
        {"name": "news", "version": "1", "state": "READY", "reason": ""},
        {"name": "news", "version": "2", "state": "UNAVAILABLE", "reason": "the graph is too large"},
    ]
    async with asyncio.timeout(LIMIT_SECONDS):
        while (response := (await gateway.client.post("/v2/repository/index")).json()) != entries:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert response == entries
    assert (await gateway.client.post("/v2/repository/index", json={"ready": True})).json() == entries[:1]
    over_grpc = (await call(gateway, "RepositoryIndex")()).models
    assert [(one.version, one.state, one.reason) for one in over_grpc] == [
        (one["version"], one["state"], one["reason"]) for one in entries
    ]
    assert len((await call(gateway, "RepositoryIndex")(ready=True)).models) == 1


async def test_statistics_count_the_texts_and_requests_of_every_endpoint(gateway: GatewayUnderTest) -> None:
    replica = await serving(gateway)
    url = "/v2/models/news/versions/1/stats"

    async def counted() -> dict[str, Any]:
        (one,) = (await gateway.client.get(url)).json()["model_stats"]
        response: dict[str, Any] = one
        return response

    before = await counted()
    await gateway.client.post(INFER, json=infer_request("a", "b"))
    await gateway.rpc_method(SERVICE, "ModelInfer")(in_grpc("a"))
    await gateway.classify("a")
    for kind in ("invalid", "internal"):  # of which the second alone is the version's fault
        replica.behaviours[1] = refuse_with(kind)
        await gateway.client.post(INFER, json=infer_request("a"), headers={"request-timeout-ms": "40"})
    after = await counted()
    assert after["inference_count"] - before["inference_count"] == 4
    assert after["execution_count"] - before["execution_count"] == 3
    failed = after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"]
    assert 1 <= failed <= 3  # attempts
    assert after["inference_stats"]["success"]["ns"] > after["inference_stats"]["compute_infer"]["ns"] > 0
    assert after["last_inference"] > 1_700_000_000_000
    (over_grpc,) = (await call(gateway, "ModelStatistics")(name="news", version="1")).model_stats
    assert over_grpc.inference_count == after["inference_count"]
    assert over_grpc.inference_stats.success.ns == after["inference_stats"]["success"]["ns"]
    assert (await gateway.client.get("/v2/models/stats")).json()["model_stats"] == [after]


async def test_health_needs_no_key_and_says_whether_the_table_was_read(gateway: GatewayUnderTest) -> None:
    async with httpx.AsyncClient(base_url=f"http://{gateway.rest}") as stranger:
        live = await stranger.get("/v2/health/live")
        assert (live.status_code, live.json()) == (200, {"live": True})
        ready = await stranger.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True})
        gateway.service.checks["routes"] = lambda: False
        ready = await stranger.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (400, {"ready": False})
    for method, answer in (("ServerLive", True), ("ServerReady", False)):
        send_request: Any = gateway.channel.unary_unary(f"/{SERVICE.full_name}/{method}")
        assert await send_request(b"") == (b"\x08\x01" if answer else b"")
