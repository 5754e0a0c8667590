"""What a client sends stays closed on its way, and ends where it hangs up; and what it says of an answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.contracts.events import FeedbackReceived
from services.contracts.rpc import inference_pb2, replica_pb2
from services.gateway.inbound.grpc_services import INFERENCE
from tests.integration.gateway.gateway import GatewayUnderTest, ReplicaCall, answer_at_once, open_gateway, target, until
from tests.integration.gateway.test_control import read_topic


@pytest.fixture
async def gateway(tmp_path: Path, embedded_bootstrap: str) -> AsyncIterator[GatewayUnderTest]:
    async with open_gateway(tmp_path, embedded_bootstrap) as opened:
        yield opened


async def test_a_message_of_a_client_and_its_answer_are_passed_on_byte_for_byte(
    gateway: GatewayUnderTest,
) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    unknown_field = b"\x9a\x06\x03new"
    payload = inference_pb2.ClassifyRequest(deployment="news", texts=["a"]).SerializeToString() + unknown_field

    async def answer_with_more(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        event = await answer_at_once(request)
        event.result.payload += unknown_field
        return event

    replica.behaviours[1] = answer_with_more
    unary: Any = gateway.channel.unary_unary("/millrace.v1.InferenceService/Classify")
    answer = await unary(payload, metadata=gateway.metadata)
    assert replica.seen[-1].payload == payload
    assert answer.endswith(unknown_field)
    stream: Any = gateway.channel.stream_stream("/millrace.v1.InferenceService/Stream")(metadata=gateway.metadata)
    frame = inference_pb2.StreamRequest(id=1).SerializeToString() + b"\x12" + bytes([len(payload)]) + payload
    await stream.write(frame)
    await stream.done_writing()
    (reply,) = [message async for message in stream]
    assert replica.seen[-1].payload == payload
    assert reply.endswith(unknown_field)


async def test_a_client_that_hangs_up_cancels_its_request_at_the_replica(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    release = asyncio.Event()

    async def never(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        await release.wait()
        return await answer_at_once(request)

    replica.behaviours[1] = never
    seen = len(replica.seen)
    request = inference_pb2.ClassifyRequest(deployment="news", texts=["a text"])
    call = gateway.rpc_method(INFERENCE, "Classify")(request)
    await until(lambda: len(replica.seen) > seen, "the replica has the request")
    call.cancel()
    await until(lambda: replica.cancelled == [replica.seen[-1].id], "the replica is reply")
    release.set()


@pytest.mark.parametrize(
    "judgement", [{"rating": 5}, {"score": 0.0}, {"reference": "no"}, {"label": "data", "item": 3}], ids=str
)
async def test_feedback_is_one_judgement_of_one_item(gateway: GatewayUnderTest, judgement: dict[str, Any]) -> None:
    await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    path = "/api/v1/deployments/news/feedback"
    given_at = "2026-11-03T12:00:00Z"
    reply = await gateway.client.post(path, json={"request_id": "req-1", "given_at": given_at, **judgement})
    assert reply.status_code == 202, reply.text
    (record,) = await read_topic(gateway, "feedback.received", 1)
    event = FeedbackReceived.model_validate_json(record.value)
    assert event == FeedbackReceived(deployment="news", request="req-1", given_at=given_at, **judgement)
    for wrong in ({}, {"label": "a", "rating": 1}, {"rating": 6}, {"score": 1.5}):
        reply = await gateway.client.post(path, json={"request_id": "req-1", **wrong})
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_field")
