"""The trainer's gRPC door: data sets, versions and runs, with a real server and key."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.contracts.rpc import trainer_pb2 as wire
from services.contracts.rpc import trainer_pb2_grpc
from services.contracts.rpc.common_pb2 import Page
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import Keyring, ensure_keys, read_key
from services.kit.transport.rpc import RpcServer, channel, metadata
from services.trainer.domain.spec import DataContent
from services.trainer.handlers import lookup, runs
from services.trainer.inbound.grpc import SERVICE, TrainerRpc
from tests.integration.trainer.service import DATASET, TrainerFixture, opened

HASH = "ab" * 32
PAST, NUL = Page(page_token="x"), Page(page_token="a\0b")


class TrainerClient:
    """A client with a key."""

    def __init__(self, trainer: TrainerFixture, opened_channel: grpc.aio.Channel, key: str) -> None:
        self.trainer = trainer
        self._stub: Any = trainer_pb2_grpc.TrainerServiceStub(opened_channel)
        self._key = key

    async def call(self, method: str, request: Any, *, key: str = "") -> Any:
        more = (("idempotency-key", key),) if key else ()
        return await getattr(self._stub, method)(request, metadata=(*metadata(self._key), *more))

    def stream(self, method: str, request: Any) -> AsyncIterator[Any]:
        return cast(AsyncIterator[Any], getattr(self._stub, method)(request, metadata=metadata(self._key)))

    async def refused(self, method: str, request: Any, *, key: str = "") -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.call(method, request, key=key)
        return refused.value.code()


def versions(**page: Any) -> wire.ListDatasetVersionsRequest:
    return wire.ListDatasetVersionsRequest(dataset="topics-1", page=Page(**page))


def timestamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[TrainerClient]:
    """A trainer that has trained once on an announced content."""
    async with opened(f"sqlite+aiosqlite:///{tmp_path / 'state.db'}", tmp_path) as trainer:
        ensure_keys(tmp_path / "keys")
        server = RpcServer(Keyring(tmp_path / "keys", SystemClock()), "127.0.0.1", 0)
        server.add(trainer_pb2_grpc.add_TrainerServiceServicer_to_server, TrainerRpc(trainer.ports), SERVICE)
        await server.open()
        opened_channel = channel(server.address)
        trainer.executor.content = DataContent(sha256=HASH, size_bytes=1000, rows=240)
        event = DATASET.model_copy(update={"content_hash": HASH})
        await runs.on_dataset_ready(trainer.envelope(event), trainer.ports)
        await trainer.work()
        yield TrainerClient(trainer, opened_channel, read_key(tmp_path / "keys"))
        await opened_channel.close()
        await server.close()


async def test_a_data_set_has_its_current_version(client: TrainerClient) -> None:
    dataset = await client.call("GetDataset", wire.GetDatasetRequest(dataset="topics-1"))
    assert dataset.content_hash == dataset.version.content_hash == HASH
    assert (dataset.version.size_bytes, dataset.version.rows, dataset.version.model) == (1000, 240, "topics")
    listed = await client.call("ListDatasetVersions", wire.ListDatasetVersionsRequest(dataset="topics-1"))
    by_hash = wire.GetDatasetVersionRequest(dataset="topics-1", content_hash=HASH[:8])
    assert [await client.call("GetDatasetVersion", by_hash)] == list(listed.versions)
    await runs.on_dataset_ready(
        client.trainer.envelope(DATASET.model_copy(update={"content_hash": "cd" * 32})), client.trainer.ports
    )
    first = await client.call("ListDatasetVersions", versions(page_size=1))
    second = await client.call("ListDatasetVersions", versions(page_size=1, page_token=first.next_page_token))
    assert [page.versions[0].content_hash[:2] for page in (first, second)] == ["cd", "ab"]
    assert second.next_page_token == ""


async def test_a_run_tells_what_it_was_started_with_by_whom_and_why(client: TrainerClient) -> None:
    request = wire.StartRunRequest(
        dataset="topics-1", content_hash=HASH[:12], recipe_json='{"epochs": 3}', hold_back=True, reason="to see"
    )
    run = await client.call("StartRun", request)
    assert (run.status, run.content_hash, run.hold_back, run.start_reason) == ("queued", HASH, True, "to see")
    assert json.loads(run.recipe_json)["epochs"] == 3
    assert run.started_by.startswith("service:")
    cancelled = await client.call("CancelRun", wire.CancelRunRequest(run=run.run, reason="seen"))
    assert (cancelled.status, cancelled.cancelled_by, cancelled.cancel_reason) == (
        "cancelled", run.started_by, "seen",
    )  # fmt: skip
    done = (await client.call("ListRuns", wire.ListRunsRequest(status="succeeded"))).runs[0]
    assert (done.data_hash, done.content_hash, done.started_by) == ("a" * 64, HASH, "trainer")
    assert done.slices[0].macro_f1 == pytest.approx(0.8)


async def test_one_key_starts_one_run_and_cancels_it_once(client: TrainerClient) -> None:
    request = wire.StartRunRequest(dataset="topics-1")
    first = await client.call("StartRun", request, key="key-1")
    assert (await client.call("StartRun", request, key="key-1")).run == first.run
    other = wire.StartRunRequest(dataset="topics-1", model="other")
    assert await client.refused("StartRun", other, key="key-1") is grpc.StatusCode.INVALID_ARGUMENT
    cancel = wire.CancelRunRequest(run=first.run)
    assert await client.refused("CancelRun", cancel, key="key-1") is grpc.StatusCode.INVALID_ARGUMENT
    for _ in range(2):
        assert (await client.call("CancelRun", cancel, key="key-2")).status == "cancelled"
    assert await client.refused("CancelRun", cancel) is grpc.StatusCode.FAILED_PRECONDITION


async def test_runs_are_filtered_by_data_set_and_time(client: TrainerClient) -> None:
    now = client.trainer.clock.now()
    for request, count in (
        (wire.ListRunsRequest(dataset="topics-1"), 1),
        (wire.ListRunsRequest(dataset="others"), 0),
        (wire.ListRunsRequest(since=timestamp(now)), 1),
        (wire.ListRunsRequest(since=timestamp(now + timedelta(seconds=1))), 0),
    ):
        assert len((await client.call("ListRuns", request)).runs) == count


async def test_bad_requests_are_refused_with_a_status_that_says_so(client: TrainerClient) -> None:
    invalid, unknown = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    for method, request, code in (
        ("StartRun", wire.StartRunRequest(), unknown),
        ("StartRun", wire.StartRunRequest(dataset="../topics-1"), unknown),
        ("StartRun", wire.StartRunRequest(dataset="topics-1", recipe_json="["), invalid),
        ("StartRun", wire.StartRunRequest(dataset="topics-1", recipe_json="[]"), invalid),
        ("StartRun", wire.StartRunRequest(dataset="topics-1", recipe_json='{"x": 1}'), invalid),
        ("StartRun", wire.StartRunRequest(dataset="topics-1", reason="x" * 501), invalid),
        ("StartRun", wire.StartRunRequest(dataset="topics-1", reason="a\0b"), invalid),
        ("StartRun", wire.StartRunRequest(dataset="topics-1", model="a\0b"), invalid),
        ("StartRun", wire.StartRunRequest(dataset="topics-1", content_hash="12"), invalid),
        ("ListRuns", wire.ListRunsRequest(since=Timestamp(seconds=2**62)), invalid),
        ("ListRuns", wire.ListRunsRequest(since=Timestamp(nanos=-5)), invalid),
        ("ListRuns", wire.ListRunsRequest(status="lost"), invalid),
        ("GetDatasetVersion", wire.GetDatasetVersionRequest(dataset="topics-1", content_hash="0" * 8), unknown),
        ("GetDatasetVersion", wire.GetDatasetVersionRequest(dataset="topics-1", content_hash="%_______"), invalid),
        ("ListDatasetVersions", wire.ListDatasetVersionsRequest(dataset="nothing"), unknown),
        (
            "ListDatasetVersions",
            wire.ListDatasetVersionsRequest(dataset="topics-1", page=Page(page_token="x")),
            invalid,
        ),
    ):
        assert await client.refused(method, request) is code, (method, request)


async def test_a_long_log_comes_complete_in_parts(client: TrainerClient) -> None:
    ((_, made),) = client.trainer.executor.started.items()
    made.progress = made.progress[:1] * (2 * lookup.LOG_LINES + 5)
    request = wire.GetRunLogsRequest(run=made.handle.run, after_line=1)
    lines = [line.number async for line in client.stream("GetRunLogs", request)]
    assert lines == list(range(2, 2 * lookup.LOG_LINES + 6))
