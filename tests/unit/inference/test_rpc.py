"""The gRPC door: one call, and a stream with many requests under way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.contracts.rpc import inference_pb2 as pb
from services.contracts.rpc import inference_pb2_grpc
from services.inference.handlers import restore
from services.inference.inbound.rpc import SERVICE_NAME, InferenceRpc
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import Keyring, ensure_keys, read_key
from services.kit.transport.rpc import RpcServer, channel, refusal_from
from tests.unit.inference.fakes import FakeRemembered, Room
from tests.unit.inference.wishes import target, wish


class Door:
    """A served room and a client of it."""

    def __init__(self, room: Room, stub: Any, key: str, rpc: InferenceRpc) -> None:
        self.room = room
        self.stub = stub
        self.key = (("authorization", f"Bearer {key}"),)
        self.rpc = rpc

    async def refused(self, request: pb.ClassifyRequest) -> tuple[str, str | None]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.stub.Classify(request, metadata=self.key)
        body = refusal_from(caught.value).body()
        return body.code, body.field


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Door]:
    room = Room(remembered=FakeRemembered([wish(1, target(1))]), clock=SystemClock())
    await restore(room.ports)
    await room.settle()
    ensure_keys(folder)
    server = RpcServer(Keyring(folder, SystemClock()), "127.0.0.1", 0)
    rpc = InferenceRpc(room.ports, load_seconds=0.02)
    server.add(inference_pb2_grpc.add_InferenceServiceServicer_to_server, rpc, SERVICE_NAME)
    await server.open()
    async with channel(server.address) as wire:
        stub = inference_pb2_grpc.InferenceServiceStub(wire)
        yield Door(room, stub, read_key(folder), rpc)
    room.engines.gate.set()
    await server.close()


def request(number: int, *texts: str, version: int = 0, deployment: str = "topics") -> pb.StreamRequest:
    asked = pb.ClassifyRequest(deployment=deployment, texts=texts or ("a text",), version=version)
    return pb.StreamRequest(id=number, classify=asked)


async def answers(call: AsyncIterator[pb.StreamResponse], count: int) -> dict[int, pb.StreamResponse]:
    found: dict[int, pb.StreamResponse] = {}
    async for message in call:
        if message.id:
            found[message.id] = message
        if len(found) == count:
            break
    return found


async def test_a_call_is_answered_with_the_labels_best_first(tmp_path: Path) -> None:
    async with served(tmp_path) as door:
        asked = pb.ClassifyRequest(deployment="topics", texts=["one two", "three"], request_id="r1")
        answer = await door.stub.Classify(asked, metadata=door.key)
        assert (answer.request_id, answer.model, answer.version, answer.tokens) == ("r1", "topics", 1, 3)
        assert [(score.label, score.score) for score in answer.predictions[0].scores] == [("yes", 0.75), ("no", 0.25)]
        assert answer.predictions[1].label == "yes"


async def test_a_call_without_a_key_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as door:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await door.stub.Classify(pb.ClassifyRequest())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError):
            await answers(door.stub.Stream(iter([request(1)])), 1)


@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        (pb.ClassifyRequest(deployment="nowhere", texts=["x"]), "unknown_deployment", "deployment"),
        (pb.ClassifyRequest(deployment="topics"), "no_texts", "texts"),
        (pb.ClassifyRequest(deployment="topics", texts=["x"] * 65), "too_many_texts", "texts"),
        (pb.ClassifyRequest(deployment="topics", texts=["fine", "x" * 10_000]), "text_too_long", "texts[1]"),
        (pb.ClassifyRequest(deployment="topics", texts=[" "]), "empty_text", "texts[0]"),
        (pb.ClassifyRequest(deployment="topics", texts=["x"], version=9), "version_not_served", "version"),
        (pb.ClassifyRequest(deployment="topics", texts=["x"], request_id="../x"), "bad_request_id", "request_id"),
    ],
)
async def test_bad_requests_end_in_a_code_a_field_and_a_hint(
    tmp_path: Path, asked: pb.ClassifyRequest, code: str, field: str
) -> None:
    async with served(tmp_path) as door:
        assert await door.refused(asked) == (code, field)
        call = door.stub.Stream(iter([pb.StreamRequest(id=7, classify=asked)]), metadata=door.key)
        failure = (await answers(call, 1))[7].failure
        assert (failure.code, failure.field) == (code, field)
        assert failure.hint


async def test_a_stream_answers_every_request_by_its_id_and_ends_after_the_last(tmp_path: Path) -> None:
    async with served(tmp_path) as door:
        call = door.stub.Stream(iter([request(number) for number in range(1, 101)]), metadata=door.key)
        found = await answers(call, 200)
        assert sorted(found) == list(range(1, 101))
        assert {answer.response.version for answer in found.values()} == {1}


async def test_one_slow_request_holds_up_no_other_on_the_stream(tmp_path: Path) -> None:
    async with served(tmp_path) as door:
        door.room.engines.gate.clear()
        call = door.stub.Stream(metadata=door.key)
        await call.write(request(1))
        await call.write(request(2, deployment="nowhere"))
        assert (await answers(call, 1))[2].failure.code == "unknown_deployment"
        door.room.engines.gate.set()
        assert (await answers(call, 1))[1].response.version == 1
        await call.done_writing()


async def test_a_stream_tells_the_load_when_it_changes(tmp_path: Path) -> None:
    async with served(tmp_path) as door:
        call = door.stub.Stream(metadata=door.key)
        told = await call.read()
        assert (told.id, told.load.queued, told.load.capacity) == (0, 0, 64)
        door.room.engines.queued = 5
        assert (await call.read()).load.queued == 5
        await call.done_writing()


async def test_leaving_ends_the_streams_after_their_last_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as door:
        door.room.engines.gate.clear()
        call = door.stub.Stream(metadata=door.key)
        await call.write(request(1))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(door.rpc.close())
        await asyncio.sleep(0.4)
        assert not closing.done()
        door.room.engines.gate.set()
        assert (await answers(call, 2))[1].response.version == 1
        await closing


async def test_a_caller_that_hangs_up_leaves_nothing_running(tmp_path: Path) -> None:
    async with served(tmp_path) as door:
        door.room.engines.gate.clear()
        call = door.stub.Stream(metadata=door.key)
        for number in range(1, 6):
            await call.write(request(number))
        await asyncio.sleep(0.1)
        assert sum(door.room.roster.in_flight.values()) == 5
        call.cancel()
        await asyncio.sleep(0.1)
        assert door.room.roster.in_flight == {}
