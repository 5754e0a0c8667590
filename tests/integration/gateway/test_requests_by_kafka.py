"""Requests by Kafka: every one is answered, under its own key and correlation, on both brokers."""

import array
import asyncio
import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.contracts.rpc import replica_pb2
from tests.integration.gateway.gateway import (
    EMBEDDING,
    ReplicaCall,
    answer_at_once,
    open_gateway,
    refuse_with,
    target,
    until,
)
from tests.integration.gateway.kafka_client import COMPLETED, DEAD, Received, kafka_client

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def failure_of(received: Received) -> dict[str, object]:
    failure: dict[str, object] = received.body["failure"]
    return failure


async def test_an_answer_has_the_key_and_the_correlation_of_its_request_and_goes_on_with_its_trace(
    tmp_path: Path, bootstrap_servers: str
) -> None:
    async with open_gateway(tmp_path, bootstrap_servers) as gateway, kafka_client(bootstrap_servers) as asker:
        await gateway.deploy(target(2))
        await gateway.replica("r-1", 2)
        body = {"deployment": "news", "texts": ["a", "b"], "request": "mine-1", "with_embeddings": True}
        key = b"\x00\xff caller's own"
        await asker.send_request(body, "evt-1", key, ce_correlationid="story-9", ce_tenant="default", traceparent=TRACE)
        (received,) = await asker.received(1)
        assert (received.topic, received.key) == (COMPLETED, key)
        assert (received.body["request"], received.body["model"], received.body["version"]) == ("mine-1", "news", 2)
        assert [one["label"] for one in received.body["predictions"]] == ["dev", "dev"]
        vector = array.array("f", base64.b64decode(received.body["embeddings"][1]))
        assert vector.tolist() == pytest.approx(EMBEDDING)
        assert received.body["failure"] is None
        assert received.headers["ce_correlationid"] == "story-9"
        assert received.headers["ce_causationid"] == "evt-1"
        assert received.headers["traceparent"].split("-")[1] == TRACE.split("-")[1]
        name = "process inference.requested"
        await until(lambda: bool(gateway.ended_spans(name)), "the span ends, a moment after its answer was told")
        (span,) = gateway.ended_spans(name)
        assert f"{span.parent.span_id:016x}" == TRACE.split("-")[2]  # type: ignore[union-attr]


async def test_plain_json_without_key_or_headers_is_a_request_too(tmp_path: Path, bootstrap_servers: str) -> None:
    async with open_gateway(tmp_path, bootstrap_servers) as gateway, kafka_client(bootstrap_servers) as asker:
        await gateway.deploy(target(2))
        await gateway.replica("r-1", 2)
        await asker.send({"deployment": "news", "texts": ["a"]})
        (received,) = await asker.received(1)
        assert received.body["version"] == 2
        assert received.key == received.body["request"].encode()
        assert received.headers["ce_correlationid"] == received.headers["ce_causationid"]


async def test_a_request_that_comes_twice_is_answered_under_one_id(tmp_path: Path, bootstrap_servers: str) -> None:
    async with open_gateway(tmp_path, bootstrap_servers) as gateway, kafka_client(bootstrap_servers) as asker:
        await gateway.deploy(target(2))
        await gateway.replica("r-1", 2)
        for _ in range(2):
            await asker.send_request({"deployment": "news", "texts": ["a"]}, "evt-same", b"k")
        await asker.send_request({"deployment": "news", "texts": ["a"]}, "evt-other", b"k")
        received = await asker.received(3)
        assert len({one.id for one in received}) == 2
        assert len({one.body["request"] for one in received}) == 2
        await asker.nothing_more()


async def test_what_is_refused_is_answered_and_what_cannot_be_read_is_a_dead_letter(
    tmp_path: Path, bootstrap_servers: str
) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    refusals: dict[str, tuple[dict[str, Any], str]] = {
        "unknown": ({"deployment": "nobody", "texts": ["a"]}, "unknown_deployment"),
        "none": ({"deployment": "news", "texts": []}, "bad_field"),
        "many": ({"deployment": "news", "texts": ["a"] * 65}, "bad_field"),
        "blank": ({"deployment": "news", "texts": ["a", " "]}, "bad_field"),
        "nul": ({"deployment": "news", "texts": ["a\0b"]}, "malformed"),
        "expired": ({"deployment": "news", "texts": ["a"], "expires_at": past}, "request_expired"),
        "version": ({"deployment": "news", "texts": ["a"], "version": 7}, "version_not_served"),
        "sticky": ({"deployment": "news", "texts": ["a"], "sticky_key": "k" * 201}, "bad_field"),
    }
    unreadable: dict[str, bytes] = {
        "not JSON": b"{",
        "pickle": b"\x80\x04K\x01.",
        "null": b"",
        "no list": b'{"deployment": "news", "texts": "a"}',
        "numbers": b'{"deployment": "news", "texts": [1]}',
        "climbing": b'{"deployment": "../etc", "texts": ["a"]}',
        "no deployment": b'{"texts": ["a"]}',
        "no zone": b'{"deployment": "news", "texts": ["a"], "expires_at": "2026-01-01T00:00:00"}',
        "id that climbs": b'{"deployment": "news", "texts": ["a"], "request": "../x"}',
    }
    async with open_gateway(tmp_path, bootstrap_servers) as gateway, kafka_client(bootstrap_servers) as asker:
        await gateway.deploy(target(2))
        await gateway.replica("r-1", 2)
        for name, (body, _) in refusals.items():
            await asker.send_request(body, f"evt-{name}", name.encode())
        for name, value in unreadable.items():
            await asker.send(value, key=name.encode())
        received = await asker.received(len(refusals) + len(unreadable))
        answered = {one.key.decode(): failure_of(one)["code"] for one in received if one.key and one.topic == COMPLETED}
        assert answered == {name: code for name, (_, code) in refusals.items()}
        assert {one.key.decode() for one in received if one.key and one.topic == DEAD} == set(unreadable)
        assert all(one.headers["dlq-reason"] for one in received if one.topic == DEAD)
        blank = next(failure_of(one) for one in received if one.key == b"blank")
        assert (blank["field"], blank["retryable"]) == ("texts[1]", False)


async def test_a_deployment_that_is_not_ready_is_waited_for_and_keeps_no_other_waiting(
    tmp_path: Path, bootstrap_servers: str
) -> None:
    knobs = {"async_ready_wait_seconds": 3.0, "async_concurrency": 2, "async_held": 8}
    async with open_gateway(tmp_path, bootstrap_servers, **knobs) as gateway, kafka_client(bootstrap_servers) as asker:
        await gateway.deploy(target(2))
        for number in range(4):
            await asker.send_request({"deployment": "news", "texts": ["a"]}, f"evt-early-{number}", b"early")
        await asker.send_request({"deployment": "nobody", "texts": ["a"]}, "evt-unknown", b"unknown")
        (first,) = await asker.received(1)
        assert first.key == b"unknown"
        await gateway.replica("r-1", 2)
        assert [one.body["version"] for one in await asker.received(4)] == [2, 2, 2, 2]
        await gateway.replicas[0].kill()
        for number in range(20):
            await asker.send_request({"deployment": "news", "texts": ["a"]}, f"evt-late-{number}", b"late")
        gone = await asker.received(20)
        assert {failure_of(one)["code"] for one in gone} <= {"deployment_not_ready", "replica_lost"}
        assert all(failure_of(one)["retryable"] for one in gone)


async def test_overload_is_waited_out(tmp_path: Path, bootstrap_servers: str) -> None:
    async with open_gateway(tmp_path, bootstrap_servers) as gateway, kafka_client(bootstrap_servers) as asker:
        await gateway.deploy(target(2))
        replica = await gateway.replica("r-1", 2)
        replica.behaviours[2] = refuse_with("overloaded", "queue_full")
        await asker.send_request({"deployment": "news", "texts": ["a"]}, "evt-1", b"k")
        await asker.nothing_more()
        del replica.behaviours[2]
        (received,) = await asker.received(1)
        assert received.body["failure"] is None


async def test_no_more_than_the_bound_is_with_the_replicas_at_once(tmp_path: Path, bootstrap_servers: str) -> None:
    under_way, most = 0, 0

    async def slow(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return await answer_at_once(request)

    knobs = {"async_concurrency": 5, "async_tenant_concurrency": 5, "async_held": 16}
    async with open_gateway(tmp_path, bootstrap_servers, **knobs) as gateway, kafka_client(bootstrap_servers) as asker:
        await gateway.deploy(target(2))
        (await gateway.replica("r-1", 2)).behaviours[2] = slow
        await gateway.serves(2)
        most = 0
        for number in range(200):
            await asker.send_request(
                {"deployment": "news", "texts": [f"text {number}"]}, f"evt-{number}", str(number).encode()
            )
        received = await asker.received(200)
        assert sorted(int(one.key or b"") for one in received) == list(range(200))
        assert most == 5


@pytest.mark.kafka
async def test_two_gateways_share_the_work_and_one_that_leaves_forgets_nothing(
    tmp_path: Path, apache_kafka_bootstrap: str
) -> None:
    async def slow(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        await asyncio.sleep(0.05)
        return await answer_at_once(request)

    bootstrap, count = apache_kafka_bootstrap, 300
    knobs = {"async_concurrency": 4, "async_tenant_concurrency": 4}
    async with open_gateway(tmp_path / "a", bootstrap, **knobs) as first, kafka_client(bootstrap) as asker:
        await first.deploy(target(2))
        (await first.replica("r-1", 2)).behaviours[2] = slow
        async with open_gateway(tmp_path / "b", bootstrap, **knobs) as second:
            (await second.replica("r-2", 2)).behaviours[2] = slow
            for number in range(count):
                await asker.send_request({"deployment": "news", "texts": ["a"]}, f"evt-{number}", str(number).encode())
            received = await asker.received(count // 3)
        while {one.key for one in received} != {str(number).encode() for number in range(count)}:
            received += await asker.received(1)
        assert all(one.body["failure"] is None for one in received)
        assert len({one.id for one in received}) == count
