"""Requests that come as events: what they become, and how long the gateway tries."""

import asyncio
import base64
import struct
from array import array
from datetime import UTC, datetime, timedelta
from typing import Any

from services.contracts.errors import Unavailable
from services.contracts.events import InferenceRequested
from services.contracts.tasks import EMBEDDING
from services.contracts.tasks.embedding import EmbeddingResult
from services.contracts.tasks.records import Source
from services.contracts.tasks.stream import Result
from services.contracts.tasks.task import AnswerInfo
from services.gateway.domain.requested import answer_id, reply_to, request_of
from services.gateway.errors import ReplicaFull
from services.gateway.handlers.requested import answer_request
from services.gateway.handlers.retrying import RetryingClient, TenantLimiter
from services.gateway.ports import ReplicaRequest, RetryLimits
from services.kit.messaging.envelope import Envelope, decode, encode
from tests.unit.gateway.fakes import GatewayFleet, answered, deployment, report, target

NOON = datetime(2026, 1, 1, tzinfo=UTC)


def envelope_of(event_id: str = "evt-1", tenant: str = "default", **fields: Any) -> Envelope[InferenceRequested]:
    event = InferenceRequested(**{"deployment": "news", "texts": ["a"], **fields})
    return Envelope(event_id, event, "test", NOON, tenant=tenant, correlation="story", key=b"\xff\x00")


def serving(fleet: GatewayFleet) -> GatewayFleet:
    fleet.routes.deployment_changed("default", deployment(target(2)), {})
    fleet.routes.replica_reported(report("r-1", 2), at=0.0)
    return fleet


async def advance(fleet: GatewayFleet, task: "asyncio.Task[Any]", seconds: float) -> None:
    for _ in range(int(seconds * 10)):
        for _ in range(20):
            await asyncio.sleep(0)
        if task.done():
            return
        await fleet.clock.advance(0.1)


def test_ids_follow_from_the_requests_id_and_tenant_alone() -> None:
    assert answer_id(envelope_of()) == answer_id(envelope_of(texts=["b"]))
    assert len({answer_id(envelope_of()), answer_id(envelope_of("evt-2")), answer_id(envelope_of(tenant="acme"))}) == 3
    assert request_of(envelope_of()) == request_of(envelope_of())
    assert request_of(envelope_of(request="mine")) == "mine"


async def test_the_answer_goes_back_under_the_records_own_key() -> None:
    fleet = serving(GatewayFleet())
    request = envelope_of()
    completed = await answer_request(request, RetryingClient(fleet.ports, RetryLimits()), fleet.ports)
    message = encode(reply_to(request, completed, at=NOON, trace={}))
    assert (message.topic, message.key, message.header("ce_id")) == (
        "inference.completed",
        b"\xff\x00",
        answer_id(request),
    )
    back = decode(message, NOON)
    assert (back.key, back.correlation_id, back.causation) == (b"\xff\x00", "story", "evt-1")
    assert back.event == completed


async def test_what_expires_while_it_waits_is_answered_so() -> None:
    fleet = GatewayFleet()
    fleet.routes.deployment_changed("default", deployment(target(2)), {})
    request = envelope_of(expires_at=fleet.clock.now() + timedelta(seconds=3))
    task = asyncio.create_task(answer_request(request, RetryingClient(fleet.ports, RetryLimits()), fleet.ports))
    await advance(fleet, task, 4)
    failure = task.result().failure
    assert failure is not None
    assert (failure.code, failure.retryable) == ("request_expired", False)


async def test_overload_is_waited_out_however_long() -> None:
    fleet = serving(GatewayFleet())
    full = True

    def behave(_: str, request: ReplicaRequest) -> Any:
        if full:
            raise ReplicaFull(queued=64, retry_after_seconds=1.0)
        return answered(request)

    fleet.replicas.behaviour = behave
    client = RetryingClient(fleet.ports, RetryLimits(ready_wait_seconds=1.0))
    task = asyncio.create_task(answer_request(envelope_of(), client, fleet.ports))
    await advance(fleet, task, 60)
    assert not task.done()
    full = False
    await advance(fleet, task, 5)
    assert task.result().failure is None


async def test_a_deployment_that_stays_away_is_waited_for_once_and_then_refused_at_once() -> None:
    fleet = serving(GatewayFleet())
    fleet.replicas.behaviour = lambda _replica, _request: (_ for _ in ()).throw(Unavailable(what="it"))
    client = RetryingClient(fleet.ports, RetryLimits(ready_wait_seconds=20.0))
    first = asyncio.create_task(answer_request(envelope_of(), client, fleet.ports))
    await advance(fleet, first, 60)
    assert first.result().failure is not None
    waited = fleet.clock.monotonic()
    assert 20 <= waited <= 40
    second = asyncio.create_task(answer_request(envelope_of("evt-2"), client, fleet.ports))
    await advance(fleet, second, 60)
    assert second.result().failure is not None
    assert fleet.clock.monotonic() - waited <= 6
    fleet.replicas.behaviour = lambda _, request: answered(request)
    third = await answer_request(envelope_of("evt-3"), client, fleet.ports)
    assert third.failure is None


async def test_a_tenant_that_fills_its_share_keeps_no_other_waiting() -> None:
    limiter, entered = TenantLimiter(3, 2), []

    async def stay(tenant: str, release: asyncio.Event) -> None:
        async with limiter.permit(tenant):
            entered.append(tenant)
            await release.wait()

    release = asyncio.Event()
    tasks = [asyncio.create_task(stay(tenant, release)) for tenant in ("a", "a", "a", "b")]
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(entered) == ["a", "a", "b"]
    release.set()
    await asyncio.gather(*tasks)
    assert sorted(entered) == ["a", "a", "a", "b"]


async def test_any_task_is_requested_by_its_name_and_its_own_fields() -> None:
    fleet = serving(GatewayFleet())

    def behave(_: str, request: ReplicaRequest) -> Result:
        result = EmbeddingResult([array("f", [0.0, 1.0])])
        info = AnswerInfo(request.request_id, "news", "news", request.version, tokens=3)
        return Result(EMBEDDING.encode_result(result, info), "news", request.version, tokens=3)

    fleet.replicas.behaviour = behave
    request = envelope_of(task="embedding", input={"texts": ["a"]}, texts=[])
    completed = await answer_request(request, RetryingClient(fleet.ports, RetryLimits()), fleet.ports)
    assert (completed.task, completed.predictions, completed.tokens) == ("embedding", [], 3)
    assert completed.embeddings == [base64.b64encode(struct.pack("<2f", 0.0, 1.0)).decode()]
    ((_, sent),) = fleet.replicas.requests
    assert (sent.task, sent.source) == ("embedding", Source.KAFKA)


async def test_what_a_task_does_not_take_and_a_task_that_is_not_known_are_answered_with_a_failure() -> None:
    fleet = serving(GatewayFleet())
    for fields, code in (({"input": {"texts": "a"}}, "bad_field"), ({"task": "painting"}, "unknown_task")):
        completed = await answer_request(envelope_of(**fields), RetryingClient(fleet.ports, RetryLimits()), fleet.ports)
        assert completed.failure is not None
        assert (completed.failure.code, completed.failure.retryable) == (code, False)
    assert fleet.replicas.requests == []
