"""A task that is defined beside the tests goes the whole way without a change of any service."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from services.contracts.rpc import inference_pb2 as pb
from services.contracts.tasks import CLASSIFICATION, Tasks
from tests.integration.gateway.kafka_client import kafka_client
from tests.integration.gateway.test_batches import create, ended, output, write
from tests.integration.tasks.counting import COUNTING, MISCOUNTING, Texts
from tests.integration.tasks.fleet import Fleet, fleet

STREAM = "/millrace.v1.InferenceService/Stream"


def records(events: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    return [one for event in events for one in event["records"] if one["source"] == source]


async def streamed(serving: Fleet, *requests: pb.StreamRequest) -> list[pb.StreamResponse]:
    call: Any = serving.gateway.channel.stream_stream(
        STREAM,
        request_serializer=pb.StreamRequest.SerializeToString,
        response_deserializer=pb.StreamResponse.FromString,
    )(metadata=serving.gateway.metadata)
    for request in requests:
        await call.write(request)
    await call.done_writing()
    return [message async for message in call]


async def test_it_answers_by_rest_by_grpc_in_chunks_by_kafka_and_in_batches(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with fleet(tmp_path, embedded_bootstrap) as serving, kafka_client(embedded_bootstrap) as asker:
        await serving.serve()
        reply_body = await serving.count("one two three", "one", request_id="by-rest")
        assert (reply_body["counts"], reply_body["tokens"], reply_body["version"]) == ([3, 1], 4, 1)

        payload = COUNTING.encode(Texts(["one two", "one"]))
        request = pb.PredictRequest(deployment="news", task=COUNTING.name, payload=payload, request_id="by-grpc")
        first, second, last = await streamed(serving, pb.StreamRequest(id=5, predict=request))
        assert [COUNTING.decode_chunk(one.delta.payload) for one in (first, second)] == [2, 1]
        assert COUNTING.decode_result(last.result.payload).counts == [2, 1]
        assert (last.id, last.result.request_id, last.result.version) == (5, "by-grpc", 1)

        body = {"deployment": "news", "task": COUNTING.name, "input": {"texts": ["one two"]}, "request": "by-kafka"}
        await asker.send_request(body, "evt-1", b"key")
        (completed,) = await asker.received(1)
        assert (completed.body["task"], completed.body["result"]) == (COUNTING.name, {"counts": [2]})

        rows = "".join(f'{{"text": "{"word " * number}"}}\n' for number in range(1, 8))
        batch = await create(serving.gateway, write(tmp_path, "texts.jsonl", rows), task=COUNTING.name)
        assert (await ended(serving.gateway, batch["batch"]))["status"] == "succeeded"
        lines = await output(serving.gateway, batch["batch"])
        assert [(line["row"], line["count"]) for line in lines] == [(number, number) for number in range(1, 8)]

        logged = await serving.events("inference.logged", lambda some: len(records(some, "batch")) >= 4)
        assert {event["task"] for event in logged} == {COUNTING.name}
        assert [one["request"] for one in records(logged, "live")] == ["by-rest", "by-grpc"]
        assert records(logged, "live")[0]["items"] == [
            {"text": "one two three", "count": 3},
            {"text": "one", "count": 1},
        ]
        assert [one["request"] for one in records(logged, "kafka")] == ["by-kafka"]


async def test_what_its_model_does_not_do_and_what_it_does_not_take_is_refused(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with fleet(tmp_path, embedded_bootstrap) as serving:
        await serving.serve()
        await serving.count("one")
        refused = await serving.gateway.classify("one")
        assert (refused.status_code, refused.json()["error"]["code"]) == (415, "task_not_served")
        wrong: tuple[dict[str, Any], ...] = ({"texts": []}, {"texts": ["a"], "with_embeddings": True})
        for sent in wrong:
            reply = await serving.gateway.client.post("/api/v1/deployments/news/count", json=sent)
            assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_field")
        request = pb.PredictRequest(deployment="news", task=COUNTING.name, payload=b"{")
        (reply_body,) = await streamed(serving, pb.StreamRequest(id=1, predict=request))
        assert (reply_body.failure.code, reply_body.failure.field) == ("malformed", "payload")
        uri = write(tmp_path, "texts.jsonl", '{"text": "a"}\n')
        body = {"deployment": "news", "uri": uri, "task": COUNTING.name, "options_json": '{"with_embeddings": true}'}
        reply = await serving.gateway.client.post("/api/v1/batches", json=body)
        assert (reply.status_code, reply.json()["error"]["field"]) == (422, "options.with_embeddings")


@pytest.mark.parametrize(
    ("primary", "canary", "verdict"),
    [(1, MISCOUNTING, "roll_back"), (MISCOUNTING, 3, "promote")],
    ids=["a worse one", "a better one"],
)
async def test_its_canary_is_judged_by_its_own_feedback(
    tmp_path: Path, embedded_bootstrap: str, primary: int, canary: int, verdict: str
) -> None:
    async with fleet(tmp_path, embedded_bootstrap) as serving:
        await serving.serve(primary, canary=canary)
        for number in range(60):
            words = number % 5 + 1
            reply_body = await serving.count("word " * words, "one", request_id=f"r-{number}")
            await serving.says(request_id=reply_body["request_id"], reference=str(words))
        judged = await serving.events("rollout.judged", lambda some: any(one["verdict"] == verdict for one in some))
        decided = next(one for one in judged if one["verdict"] == verdict)
        evidence = next(one for one in decided["evidence"] if one["indicator"] == "correctness")
        assert (decided["rollout"], decided["version"]) == (f"r-{canary}", canary)
        assert evidence["decision"] == ("worse" if verdict == "roll_back" else "safe")
        assert 0 < evidence["pairs"] <= 60
        logged = await serving.events("inference.logged", lambda some: len(records(some, "mirror")) >= 60)
        assert {one["request"] for one in records(logged, "mirror")} == {f"r-{number}" for number in range(60)}


def test_two_tasks_of_one_name_or_verb_are_refused() -> None:
    with pytest.raises(ValueError, match="two tasks share a name or a verb"):
        Tasks(CLASSIFICATION, COUNTING, COUNTING)


def test_its_payload_is_its_own() -> None:
    assert orjson.loads(COUNTING.encode(Texts(["a b"]))) == ["a b"]
