"""The control plane: events that the gateway accepts, and calls it passes on."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from services.contracts.events import FeedbackReceived
from services.contracts.rpc import gateway_pb2, monitor_pb2, registry_pb2
from services.gateway.inbound.grpc_services import GATEWAY, MONITOR, REGISTRY
from services.gateway.outbound.store import MIGRATIONS, store
from services.kit.core.clock import SystemClock
from services.kit.core.ids import SystemIds
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.migrate import check
from tests.integration.gateway.gateway import GatewayUnderTest, target, until
from tests.waiting import LIMIT_SECONDS

DATASET = {"dataset": "texts", "uri": "file:///data/texts.jsonl", "model": "news", "recipe_json": '{"epochs": 1}'}


async def read_topic(gateway: GatewayUnderTest, topic: str, count: int) -> list[Any]:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=gateway.service.settings.kafka_bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def test_an_announced_data_set_becomes_an_event_in_the_callers_trace(gateway: GatewayUnderTest) -> None:
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    reply = await gateway.client.post("/api/v1/datasets", json=DATASET, headers={"traceparent": trace})
    assert reply.status_code == 202
    assert reply.json()["trace_id"] == "ab" * 16
    (record,) = await read_topic(gateway, "dataset.ready", 1)
    headers = {name: value.decode() for name, value in record.headers}
    assert headers["ce_id"] == reply.json()["event_id"]
    assert headers["traceparent"].startswith("00-" + "ab" * 16)
    assert b'"epochs":1' in record.value


async def test_one_idempotency_key_gives_one_event_by_either_transport(gateway: GatewayUnderTest) -> None:
    key = {"idempotency-key": "key-1"}
    replies = await asyncio.gather(
        *(gateway.client.post("/api/v1/datasets", json=DATASET, headers=key) for _ in range(5))
    )
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.text for reply in replies}) == 1
    by_grpc = await gateway.rpc_method(GATEWAY, "AnnounceDataset")(
        json_format.ParseDict(DATASET, gateway_pb2.AnnounceDatasetRequest()), more=(("idempotency-key", "key-1"),)
    )
    assert by_grpc.event_id == replies[0].json()["event_id"]
    other = await gateway.client.post("/api/v1/datasets", json={**DATASET, "dataset": "others"}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "key_reused")
    await gateway.client.post("/api/v1/datasets", json={**DATASET, "dataset": "last"})
    records = await read_topic(gateway, "dataset.ready", 2)
    assert sorted(record.key for record in records) == [b"last", b"texts"]


async def test_feedback_becomes_an_event_and_asks_for_a_known_deployment(gateway: GatewayUnderTest) -> None:
    path = "/api/v1/deployments/news/feedback"
    sent = {"request_id": "req-1", "label": "data"}
    assert (await gateway.client.post(path, json=sent)).status_code == 404
    await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    reply = await gateway.client.post(path, json=sent)
    assert reply.status_code == 202
    (record,) = await read_topic(gateway, "feedback.received", 1)
    assert record.key == b"news"
    event = FeedbackReceived.model_validate_json(record.value or b"")
    assert event == FeedbackReceived(deployment="news", request="req-1", label="data")


async def test_rest_calls_reach_the_owner_with_the_callers_key_and_trace(gateway: GatewayUnderTest) -> None:
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    reply = await gateway.client.get("/api/v1/models/news", headers={"traceparent": trace})
    assert reply.status_code == 200
    assert reply.json() == {"name": "news", "versions": [], "aliases": {"champion": 2}}
    assert gateway.registry.metadata["authorization"] == gateway.metadata[0][1]
    assert gateway.registry.metadata["traceparent"].startswith("00-" + "ab" * 16)
    rollout = await gateway.client.post("/api/v1/deployments/news/rollouts", json={"version": "7", "reason": "x"})
    assert (rollout.json()["name"], rollout.json()["version"]) == ("news", 7)


async def test_errors_of_the_owner_pass_through_both_transports_in_its_words(gateway: GatewayUnderTest) -> None:
    reply = await gateway.client.get("/api/v1/models/other")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_model")
    assert reply.json()["error"]["message"] == "No model is named 'other'."
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.rpc_method(REGISTRY, "GetModel")(registry_pb2.GetModelRequest(model="other"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "No model is named 'other'."


async def test_a_broken_owner_is_500_without_its_insides_and_a_silent_one_503(gateway: GatewayUnderTest) -> None:
    broken = await gateway.client.get("/api/v1/models")
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in broken.text
    silent = await gateway.client.get("/api/v1/deployments/news/health")
    assert (silent.status_code, silent.json()["error"]["message"]) == (503, "The monitor does not answer.")
    assert "127.0.0.1" not in silent.text
    assert int(silent.headers["retry-after"]) >= 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.rpc_method(MONITOR, "GetHealth")(monitor_pb2.GetDeploymentHealthRequest(deployment="news"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_forwarder_passes_messages_on_as_they_are(gateway: GatewayUnderTest) -> None:
    answer = await gateway.rpc_method(REGISTRY, "GetModel")(registry_pb2.GetModelRequest(model="news"))
    assert answer.aliases["champion"] == 2
    assert gateway.registry.metadata["authorization"] == gateway.metadata[0][1]


async def test_a_log_comes_as_lines_and_says_so_when_it_breaks_off(gateway: GatewayUnderTest) -> None:
    reply = await gateway.client.get("/api/v1/runs/run-1/logs")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert lines[:2] == [{"number": 1, "text": "begun"}, {"number": 2, "text": "going on"}]
    assert lines[2]["error"]["code"] == "unknown_run"
    unknown = await gateway.client.get("/api/v1/runs/run-2/logs")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_run")


async def test_a_followed_log_ends_at_the_owner_when_the_client_leaves(gateway: GatewayUnderTest) -> None:
    async with gateway.client.stream("GET", "/api/v1/runs/run-1/logs?follow=true") as reply:
        lines = reply.aiter_lines()
        assert json.loads(await anext(lines))["number"] == 1
        await until(lambda: gateway.trainer.followers == 1, "the log is followed")
    await until(lambda: gateway.trainer.followers == 0, "nobody follows it any more")


async def test_openapi_lists_every_route(gateway: GatewayUnderTest) -> None:
    document = (await gateway.client.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert "/api/v1/deployments/{deployment}/classify" in document["paths"]


async def test_the_store_counts_what_waits_and_its_tables_are_those_of_the_code(database_url: str) -> None:
    database = Database(database_url, MIGRATIONS)
    await database.open()
    try:
        async with store(database, SystemClock(), SystemIds()).transaction() as tx:
            assert await tx.waiting_events() == 0
            for _ in range(3):
                await tx.emit(FeedbackReceived(deployment="news", request="r", label="l"), tenant="default")
            assert await tx.waiting_events() == 3
        async with database.write() as session:
            connection = await session.connection()
            await connection.run_sync(check, MIGRATIONS)
    finally:
        await database.close()
