"""The gRPC door: one call, and a stream with many requests under way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.contracts.rpc import inference_pb2, replica_pb2_grpc
from services.contracts.rpc import replica_pb2 as pb
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest
from services.inference.errors import QueueFull
from services.inference.handlers.deployments import restore
from services.inference.inbound.grpc import SERVICE_NAME, ReplicaRpc
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import Keyring, ensure_keys, read_key
from services.kit.transport.rpc import RpcServer, channel
from tests.unit.inference.builders import deployment, target
from tests.unit.inference.fakes import FakeDesiredState, ReplicaUnderTest


class ReplicaClient:
    """A served room and a client of it."""

    def __init__(self, replica: ReplicaUnderTest, stub: Any, key: str, rpc: ReplicaRpc) -> None:
        self.replica = replica
        self.stub = stub
        self.key = (("authorization", f"Bearer {key}"),)
        self.rpc = rpc


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[ReplicaClient]:
    replica = ReplicaUnderTest(desired_state=FakeDesiredState([deployment(1, target(1))]), clock=SystemClock())
    await restore(replica.ports)
    await replica.settle()
    ensure_keys(folder)
    server = RpcServer(Keyring(folder, SystemClock()), "127.0.0.1", 0)
    rpc = ReplicaRpc(replica.ports, load_seconds=0.02)
    server.add(replica_pb2_grpc.add_ReplicaServiceServicer_to_server, rpc, SERVICE_NAME)
    await server.open()
    async with channel(server.address) as wire:
        stub = replica_pb2_grpc.ReplicaServiceStub(wire)
        yield ReplicaClient(replica, stub, read_key(folder), rpc)
    replica.engines.gate.set()
    await server.close()


def request(
    number: int, *texts: str, version: int = 0, deployment: str = "topics", name: str = ""
) -> pb.ReplicaRequest:
    payload = CLASSIFICATION.encode(ClassificationRequest(texts or ("a text",)))
    return pb.ReplicaRequest(
        id=number,
        predict=pb.TaskRequest(
            deployment=deployment, task="classification", payload=payload, version=version, request_id=name
        ),
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - waits for the other side
            await asyncio.sleep(0.005)


async def answers(call: AsyncIterator[pb.ReplicaEvent], count: int) -> dict[int, pb.ReplicaEvent]:
    matches: dict[int, pb.ReplicaEvent] = {}
    async for message in call:
        if message.id:
            matches[message.id] = message
        if len(matches) == count:
            break
    return matches


async def test_a_result_is_what_a_client_of_grpc_gets_byte_for_byte(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        call = client.stub.Predict(iter([request(1, "one two", "three", name="r1")]), metadata=client.key)
        result = (await answers(call, 1))[1].result
        assert (result.model, result.version, result.tokens) == ("topics", 1, 3)
        answer = inference_pb2.ClassifyResponse.FromString(result.payload)
        assert (answer.request_id, answer.deployment, answer.version, answer.tokens) == ("r1", "topics", 1, 3)
        assert [(score.label, score.score) for score in answer.predictions[0].scores] == [("yes", 0.75), ("no", 0.25)]
        assert answer.predictions[1].label == "yes"


async def test_a_call_without_a_key_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers(client.stub.Predict(iter([request(1)])), 1)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        (request(7, deployment="nowhere"), "unknown_deployment", "deployment"),
        (request(7, *["x"] * 65), "bad_field", "texts"),
        (request(7, "fine", "x" * 10_000), "text_too_long", "texts[1]"),
        (request(7, " "), "bad_field", "texts[0]"),
        (request(7, "x", version=9), "version_not_served", "version"),
        (pb.ReplicaRequest(id=7, predict=pb.TaskRequest(deployment="topics", task="painting")), "unknown_task", "task"),
        (pb.ReplicaRequest(id=7, predict=pb.TaskRequest(source="nobody")), "bad_field", "source"),
    ],
)
async def test_bad_requests_end_in_a_code_and_a_field(
    tmp_path: Path, message: pb.ReplicaRequest, code: str, field: str
) -> None:
    async with served(tmp_path) as client:
        call = client.stub.Predict(iter([message]), metadata=client.key)
        failure = (await answers(call, 1))[7].failure
        assert (failure.code, failure.field) == (code, field)


async def test_a_failure_that_passes_by_itself_says_when(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        client.replica.engines.error = QueueFull(queued=64, capacity=64)
        failure = (await answers(client.stub.Predict(iter([request(1)]), metadata=client.key), 1))[1].failure
        assert (failure.kind, failure.retry_after_seconds) == ("overloaded", 1.0)


async def test_a_cancelled_request_ends_without_an_event_and_leaves_nothing_running(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        client.replica.engines.gate.clear()
        call = client.stub.Predict(metadata=client.key)
        await call.write(request(1))
        await call.write(request(2))
        await until(lambda: sum(client.replica.models.in_flight.values()) == 2)
        await call.write(pb.ReplicaRequest(id=1, cancel=pb.Cancel()))
        await until(lambda: sum(client.replica.models.in_flight.values()) == 1)
        client.replica.engines.gate.set()
        await call.done_writing()
        assert [event.id async for event in call if event.id] == [2]


async def test_a_stream_answers_every_request_by_its_id_and_ends_after_the_last(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        call = client.stub.Predict(iter([request(number) for number in range(1, 101)]), metadata=client.key)
        matches = await answers(call, 200)
        assert sorted(matches) == list(range(1, 101))
        assert {answer.result.version for answer in matches.values()} == {1}


async def test_one_slow_request_holds_up_no_other_on_the_stream(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        client.replica.engines.gate.clear()
        call = client.stub.Predict(metadata=client.key)
        await call.write(request(1))
        await call.write(request(2, deployment="nowhere"))
        assert (await answers(call, 1))[2].failure.code == "unknown_deployment"
        client.replica.engines.gate.set()
        assert (await answers(call, 1))[1].result.version == 1
        await call.done_writing()


async def test_a_stream_tells_the_load_when_it_changes(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        call = client.stub.Predict(metadata=client.key)
        reports = await call.read()
        assert (reports.id, reports.load.queued, reports.load.capacity) == (0, 0, 64)
        client.replica.engines.queued = 5
        assert (await call.read()).load.queued == 5
        await call.done_writing()


async def test_leaving_ends_the_streams_after_their_last_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        client.replica.engines.gate.clear()
        call = client.stub.Predict(metadata=client.key)
        await call.write(request(1))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(client.rpc.close())
        await asyncio.sleep(0.4)
        assert not closing.done()
        client.replica.engines.gate.set()
        assert (await answers(call, 2))[1].result.version == 1
        await closing


async def test_a_caller_that_hangs_up_leaves_nothing_running(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        client.replica.engines.gate.clear()
        call = client.stub.Predict(metadata=client.key)
        for number in range(1, 6):
            await call.write(request(number))
        await asyncio.sleep(0.1)
        assert sum(client.replica.models.in_flight.values()) == 5
        call.cancel()
        await asyncio.sleep(0.1)
        assert client.replica.models.in_flight == {}
