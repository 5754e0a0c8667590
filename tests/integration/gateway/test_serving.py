"""Classification through a running gateway: versions, replicas, failures."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from services.contracts.access import KeyRole
from services.contracts.events import Role
from services.contracts.rpc import inference_pb2, replica_pb2
from services.gateway.inbound.grpc_services import INFERENCE
from services.gateway.telemetry import MIRRORS
from services.kit.core.clock import SystemClock
from services.kit.identity.keys import KeyringFile, NewKey
from tests.fixtures.metrics import Scraped
from tests.integration.gateway.gateway import (
    EMBEDDING,
    FakeReplica,
    GatewayUnderTest,
    ReplicaCall,
    answer_at_once,
    identity,
    open_gateway,
    refuse_with,
    target,
    until,
)
from tests.waiting import LIMIT_SECONDS


async def test_a_ready_version_answers_with_its_labels_and_its_number(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    reply = await gateway.classify("one", "two", request_id="req-7")
    assert reply.status_code == 200
    assert reply.headers["x-millrace-version"] == "1"
    body = reply.json()
    assert body["request_id"] == "req-7"
    assert (body["deployment"], body["model"], body["version"]) == ("news", "news", 1)
    assert [prediction["label"] for prediction in body["predictions"]] == ["dev", "dev"]
    assert body["predictions"][0]["scores"] == [{"label": "dev", "score": 0.75}, {"label": "data", "score": 0.25}]
    assert list(replica.seen[-1].texts) == ["one", "two"]
    assert replica.seen[-1].deadline_ms > 20_000


async def test_a_replica_is_called_in_the_name_of_the_tenant_whose_key_it_is(gateway: GatewayUnderTest) -> None:
    """Two tenants' deployments of one name on one replica: it tells them apart by nothing else."""
    replica = await gateway.replica("replica-1", 1)
    report = replica.report(1)
    of_acme = report.versions[0].model_copy(update={"tenant": "acme"})
    await gateway.publish(report.model_copy(update={"versions": [*report.versions, of_acme]}))
    await gateway.deploy(target(1))
    await gateway.deploy(target(1), tenant="acme")
    _, key = KeyringFile(gateway.home / "keys", SystemClock()).create(NewKey(KeyRole.CLIENT, "acme"), by="test")
    acme = {"authorization": f"Bearer {key}"}
    await gateway.serves(1)
    async with asyncio.timeout(LIMIT_SECONDS):
        while (await gateway.classify(headers=acme)).status_code != 200:  # noqa: ASYNC110 - asks another process
            await asyncio.sleep(0.01)
    replica.seen.clear()
    assert (await gateway.classify("ours")).status_code == 200
    assert (await gateway.classify("theirs", headers=acme)).status_code == 200
    assert [(request.tenant, *request.texts) for request in replica.seen] == [
        ("default", "ours"),
        ("acme", "theirs"),
    ]


async def test_an_unknown_deployment_is_404_and_one_without_a_replica_503_with_retry_after(
    gateway: GatewayUnderTest,
) -> None:
    unknown = await gateway.client.post("/api/v1/deployments/other/classify", json={"texts": ["a text"]})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "unknown_deployment"
    await gateway.deploy(target(1))
    async with asyncio.timeout(LIMIT_SECONDS):
        while (reply := await gateway.classify()).status_code == 404:  # noqa: ASYNC110 - asks another process
            await asyncio.sleep(0.01)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "deployment_not_ready"
    assert int(reply.headers["retry-after"]) >= 1


async def test_a_stopped_deployment_is_404_at_once_in_its_own_words(gateway: GatewayUnderTest) -> None:
    await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    await gateway.deploy(target(1, Role.DRAINING, 0))
    async with asyncio.timeout(LIMIT_SECONDS):
        while (reply := await gateway.classify()).status_code == 200:  # noqa: ASYNC110 - asks another process
            await asyncio.sleep(0.01)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "nothing_served")
    await gateway.deploy()
    assert (await gateway.classify(version=1)).json()["error"]["code"] == "nothing_served"
    await gateway.deploy(target(1))
    await gateway.serves(1)


async def test_a_request_waits_for_the_only_replica_to_come_back(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    await replica.kill()
    waiting = asyncio.create_task(gateway.classify())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await gateway.replica("replica-2", 1)
    assert (await waiting).status_code == 200


async def test_killing_the_canary_under_load_fails_no_request(gateway: GatewayUnderTest) -> None:
    await gateway.replica("replica-1", 1)
    canary = await gateway.replica("replica-2", 2)
    await gateway.deploy(target(1, weight=50), target(2, Role.CANARY, 50))
    await gateway.serves(2)
    answers: list[int] = []
    versions: set[str] = set()

    async def send_request() -> None:
        for _ in range(40):
            reply = await gateway.classify()
            answers.append(reply.status_code)
            versions.add(reply.headers["x-millrace-version"])

    clients = [asyncio.create_task(send_request()) for _ in range(4)]
    await until(lambda: versions == {"1", "2"}, "both versions answer")
    await canary.kill()
    await asyncio.gather(*clients)
    assert set(answers) == {200}
    assert versions == {"1", "2"}


@pytest.mark.parametrize("kind", ["internal", "unavailable", "not_found", "overloaded"])
async def test_a_canary_that_refuses_leaves_the_request_to_the_primary(gateway: GatewayUnderTest, kind: str) -> None:
    replica = await gateway.replica("replica-1", 1, 2)
    await gateway.deploy(target(1, weight=0), target(2, Role.CANARY, 100))
    await gateway.serves(2)
    replica.behaviours[2] = refuse_with(kind)
    reply = await gateway.classify()
    assert reply.status_code == 200
    assert reply.json()["version"] == 1


async def test_embeddings_come_over_rest_and_grpc_as_the_replica_gave_them(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1, 2)
    await gateway.deploy(target(1), target(2, Role.CANARY, 0))
    await gateway.serves(1)
    request = {"texts": ["a", "b"], "version": 2}
    response = (await gateway.client.post("/api/v1/deployments/news/embed", json=request)).json()
    assert response["version"] == 2
    assert "predictions" not in response
    assert [part["values"] for part in response["embeddings"]] == [pytest.approx(list(EMBEDDING))] * 2
    embed = gateway.rpc_method(INFERENCE, "Embed")
    over_grpc = await embed(inference_pb2.EmbedRequest(deployment="news", texts=["a"], whole_texts=True))
    assert list(over_grpc.embeddings[0].values) == pytest.approx(list(EMBEDDING))
    assert [one.message.whole_texts for one in replica.seen[-2:]] == [False, True]


async def test_what_the_replica_says_of_the_request_itself_reaches_the_client_in_its_words(
    gateway: GatewayUnderTest,
) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    replica.behaviours[1] = refuse_with("invalid", "text_too_long")
    reply = await gateway.classify()
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert (error["code"], error["message"], error["field"]) == ("text_too_long", "the replica says no", "texts")


async def test_full_replicas_refuse_instead_of_queueing(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.publish(replica.report(1, capacity=1))
    await gateway.deploy(target(1))
    await gateway.serves(1)
    release = asyncio.Event()

    async def answer_later(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        await release.wait()
        return await answer_at_once(request)

    replica.behaviours[1] = answer_later
    calls = [asyncio.create_task(gateway.classify()) for _ in range(3)]
    finished, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    reply = finished.pop().result()
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) >= 1
    release.set()
    await asyncio.wait(waiting)


async def test_a_mirrored_request_is_seen_by_the_other_version_and_by_no_client(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1, 2)
    await gateway.deploy(target(1), target(2, Role.CANARY, 0), mirror=1.0)
    await gateway.serves(1)
    replica.behaviours[2] = refuse_with("internal")
    reply = await gateway.classify(request_id="req-mirrored")
    assert reply.json()["version"] == 1
    await until(lambda: any(r.request_id == "req-mirrored" and r.source == "mirror" for r in replica.seen), "mirrored")
    seen = [r for r in replica.seen if r.request_id == "req-mirrored"]
    assert [(one.version, one.source) for one in seen] == [(1, "live"), (2, "mirror")]


async def until_served_by(gateway: GatewayUnderTest, replica: FakeReplica) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not replica.seen:
            await gateway.classify()


async def test_a_leaving_replica_finishes_what_it_has_and_gets_nothing_new(gateway: GatewayUnderTest) -> None:
    old = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    release = asyncio.Event()

    async def answer_later(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        if request.texts[0] == "slow":
            await release.wait()
        return await answer_at_once(request)

    old.behaviours[1] = answer_later
    slow = asyncio.create_task(gateway.classify("slow"))
    await until(lambda: any(r.texts[0] == "slow" for r in old.seen), "the old replica has the request")
    new = await gateway.replica("replica-2", 1)
    await gateway.publish(old.report(leaving=True))
    await until_served_by(gateway, new)
    seen = len(old.seen)
    for _ in range(10):
        assert (await gateway.classify()).status_code == 200
    assert len(old.seen) == seen
    release.set()
    assert (await slow).status_code == 200


async def test_the_first_answer_of_a_version_ends_the_trace_of_its_rollout(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    correlation_id = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}
    await gateway.deploy(target(1), trace_context=correlation_id)
    await gateway.serves(1)
    await gateway.classify()
    firsts = [s for s in gateway.ended_spans("millrace.first_request") if s.status.is_ok or s.status.is_unset]
    answered = [s for s in firsts if "error.type" not in (s.attributes or {})]
    assert len(answered) == 1
    trace_id, span_id, parent = identity(answered[0])
    assert (trace_id, parent) == ("ab" * 16, "cd" * 8)
    assert f"00-{trace_id}-{span_id}-01" in {request.traceparent for request in replica.seen}


async def test_a_sampled_caller_gets_a_server_span_and_the_replica_its_context(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    sampled = "00-" + "12" * 16 + "-" + "34" * 8 + "-01"
    reply = await gateway.classify(headers={"traceparent": sampled})
    name = "POST /api/v1/deployments/{deployment}/classify"
    (span,) = [span for span in map(identity, gateway.ended_spans(name)) if span[0] == "12" * 16]
    context = f"00-{span[0]}-{span[1]}-01"
    assert reply.headers["traceparent"] == context == replica.seen[-1].traceparent
    unsampled = sampled[:-2] + "00"
    reply = await gateway.classify(headers={"traceparent": unsampled})
    assert reply.headers["traceparent"] == unsampled == replica.seen[-1].traceparent


async def test_grpc_clients_are_answered_one_by_one_and_on_a_stream(gateway: GatewayUnderTest) -> None:
    await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    request = inference_pb2.ClassifyRequest(deployment="news", texts=["a text"], request_id="req-grpc")
    answer = await gateway.rpc_method(INFERENCE, "Classify")(request)
    assert (answer.request_id, answer.version, answer.predictions[0].label) == ("req-grpc", 1, "dev")
    call = gateway.channel.stream_stream(
        "/millrace.v1.InferenceService/Stream",
        request_serializer=inference_pb2.StreamRequest.SerializeToString,
        response_deserializer=inference_pb2.StreamResponse.FromString,
    )(metadata=gateway.metadata)
    for number in (1, 2):
        await call.write(inference_pb2.StreamRequest(id=number, classify=request))
    embed = inference_pb2.EmbedRequest(deployment="news", texts=["a text"])
    await call.write(inference_pb2.StreamRequest(id=4, embed=embed))
    named = inference_pb2.PredictRequest(deployment="news", task="embedding", payload=embed.SerializeToString())
    await call.write(inference_pb2.StreamRequest(id=5, predict=named))
    named = inference_pb2.PredictRequest(deployment="news", task="painting")
    await call.write(inference_pb2.StreamRequest(id=6, predict=named))
    await call.write(
        inference_pb2.StreamRequest(id=3, classify=inference_pb2.ClassifyRequest(deployment="none", texts=["a"]))
    )
    await call.done_writing()
    answers = {message.id: message async for message in call}
    assert answers[1].response.version == answers[2].response.version == 1
    assert (answers[3].failure.kind, answers[3].failure.code) == ("not_found", "unknown_deployment")
    assert list(answers[4].embedding.embeddings[0].values) == pytest.approx(list(EMBEDDING))
    assert (answers[5].result.version, answers[5].result.tokens) == (1, 7)
    response = inference_pb2.EmbedResponse.FromString(answers[5].result.payload)
    assert list(response.embeddings[0].values) == pytest.approx(list(EMBEDDING))
    assert answers[6].failure.code == "unknown_task"


async def test_a_replica_that_hangs_is_left_for_another(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, attempt_seconds=0.3) as gateway:
        hung = await gateway.replica("replica-1", 1)
        await gateway.deploy(target(1))
        await gateway.serves(1)
        release = asyncio.Event()

        async def hang(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
            await release.wait()
            return await answer_at_once(request)

        hung.behaviours[1] = hang
        await until_served_by(gateway, await gateway.replica("replica-2", 1))
        replies = [await gateway.classify() for _ in range(4)]
        assert {reply.status_code for reply in replies} == {200}
        release.set()


async def test_mirrors_beyond_their_bound_are_dropped_and_counted(
    tmp_path: Path, embedded_bootstrap: str, scraped: Scraped
) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, mirror_limit=2) as gateway:
        replica = await gateway.replica("replica-1", 1, 2)
        release = asyncio.Event()

        async def hang(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
            await release.wait()
            return await answer_at_once(request)

        replica.behaviours[2] = hang
        dropped = scraped.value(MIRRORS, tenant="default", outcome="dropped")
        await gateway.deploy(target(1), target(2, Role.CANARY, 0), mirror=1.0)
        await gateway.serves(1)
        replies = [await gateway.classify() for _ in range(5)]
        assert {reply.json()["version"] for reply in replies} == {1}
        assert scraped.value(MIRRORS, tenant="default", outcome="dropped") - dropped >= 3
        assert len({request.id for request in replica.seen if request.source == "mirror"}) == 2
        release.set()


async def test_a_new_gateway_reads_the_table_from_its_beginning(tmp_path: Path, bootstrap_servers: str) -> None:
    async with open_gateway(tmp_path, bootstrap_servers) as first:
        await first.replica("replica-1", 1)
        await first.deploy(target(1))
        await first.serves(1)
        other_database = f"sqlite+aiosqlite:///{tmp_path / 'second.db'}"
        async with open_gateway(tmp_path, bootstrap_servers, database_url=other_database) as second:
            assert (await second.classify()).json()["version"] == 1


async def test_a_stopping_gateway_ends_the_requests_it_has(gateway: GatewayUnderTest) -> None:
    replica = await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)

    async def take_a_while(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        await asyncio.sleep(0.5)
        return await answer_at_once(request)

    replica.behaviours[1] = take_a_while
    seen = len(replica.seen)
    calls = [asyncio.create_task(gateway.classify()) for _ in range(8)]
    await until(lambda: len(replica.seen) == seen + 8, "the replica has the requests")
    os.kill(os.getpid(), signal.SIGTERM)
    assert {(await reply).status_code for reply in calls} == {200}
    assert await gateway.running == 0
