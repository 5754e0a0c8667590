"""The monitor's gRPC API, with a real server and key."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import orjson
import pytest

from services.contracts.rpc import monitor_pb2, monitor_pb2_grpc
from services.kit.identity.auth import Keyring, ensure_keys, read_key
from services.kit.transport.rpc import RpcServer, channel, metadata
from services.monitor.inbound.grpc import SERVICE, MonitorRpc
from tests.integration.monitor.conftest import DEPLOYMENT, Monitor
from tests.integration.monitor.test_canaries_are_judged import pairs


class Client:
    """A client with a key."""

    def __init__(self, opened: grpc.aio.Channel, key: str) -> None:
        self.stub = monitor_pb2_grpc.MonitorServiceStub(opened)
        self.metadata = metadata(key)


@pytest.fixture
async def client(monitor: Monitor, tmp_path: Path) -> AsyncIterator[Client]:
    ensure_keys(tmp_path / "keys")
    server = RpcServer(Keyring(tmp_path / "keys", monitor.clock), "127.0.0.1", 0)
    server.add(monitor_pb2_grpc.add_MonitorServiceServicer_to_server, MonitorRpc(monitor.ports), SERVICE)
    await server.open()
    opened = channel(server.address)
    yield Client(opened, read_key(tmp_path / "keys"))
    await opened.close()
    await server.close()


async def test_windows_are_listed_newest_first(monitor: Monitor, client: Client) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 100)
    await monitor.answer(1, 100, shift=2.0)
    await monitor.pass_time(1)
    request = monitor_pb2.ListWindowsRequest(deployment=DEPLOYMENT)
    windows = (await client.stub.ListWindows(request, metadata=client.metadata)).windows
    assert [(one.number, one.version, one.rows, one.verdict) for one in windows] == [
        (2, 1, 100, "suspect"),
        (1, 1, 100, "quiet"),
    ]
    assert windows[0].p_value <= 0.01 < windows[1].p_value
    assert windows[0].closed_at.ToDatetime() >= windows[0].opened_at.ToDatetime()


async def test_windows_are_paged_and_chosen_by_version_and_verdict(monitor: Monitor, client: Client) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 300)
    await monitor.pass_time(1)
    await monitor.serve(2)
    await monitor.answer(2, 100, shift=2.0)
    await monitor.pass_time(1)
    seen: list[int] = []
    request = monitor_pb2.ListWindowsRequest(deployment=DEPLOYMENT, page_size=1)
    while True:
        answer = await client.stub.ListWindows(request, metadata=client.metadata)
        seen += [window.number for window in answer.windows]
        if not (token := answer.next_page_token):
            break
        if len(seen) == 1:
            await monitor.answer(2, 100)
            await monitor.pass_time(1)
        request.page_token = token
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen) == 4
    chosen = monitor_pb2.ListWindowsRequest(deployment=DEPLOYMENT, version=1, verdict="quiet")
    windows = (await client.stub.ListWindows(chosen, metadata=client.metadata)).windows
    assert [(window.version, window.verdict) for window in windows] == [(1, "quiet")] * 3
    none = monitor_pb2.ListWindowsRequest(deployment=DEPLOYMENT, version=2**32 - 1)
    assert not (await client.stub.ListWindows(none, metadata=client.metadata)).windows


async def test_one_window_is_shown_with_the_numbers_of_its_test(monitor: Monitor, client: Client) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 100)
    await monitor.pass_time(1)
    request = monitor_pb2.GetWindowRequest(deployment=DEPLOYMENT, number=1)
    report = await client.stub.GetWindow(request, metadata=client.metadata)
    assert (report.number, report.test, report.baseline_rows, report.window_rows) == (1, "mmd-rbf", 200, 100)
    assert report.bandwidth > 0
    assert (report.permutations, report.answered) == (200, 100)
    for number in (2, 2**32 - 1):
        request = monitor_pb2.GetWindowRequest(deployment=DEPLOYMENT, number=number)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await client.stub.GetWindow(request, metadata=client.metadata)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_verdicts_are_paged_and_chosen_by_what_they_say(monitor: Monitor, client: Client) -> None:
    await monitor.serve(1, canary=2)
    await monitor.pass_time(1)
    await pairs(monitor, 60, candidate=0.5, champion=0.9)
    await monitor.pass_time(1)
    request = monitor_pb2.ListVerdictsRequest(deployment=DEPLOYMENT, page_size=1)
    first = await client.stub.ListVerdicts(request, metadata=client.metadata)
    request.page_token = first.next_page_token
    second = await client.stub.ListVerdicts(request, metadata=client.metadata)
    assert [one.verdict for one in (*first.verdicts, *second.verdicts)] == ["roll_back", "hold"]
    assert not second.next_page_token
    for query, verdicts in (
        ({"verdict": "hold"}, ["hold"]),
        ({"rollout": "r-2", "version": 2}, ["roll_back", "hold"]),
        ({"rollout": "r-3"}, []),
    ):
        request = monitor_pb2.ListVerdictsRequest(deployment=DEPLOYMENT, **query)
        response = await client.stub.ListVerdicts(request, metadata=client.metadata)
        assert [one.verdict for one in response.verdicts] == verdicts
    request = monitor_pb2.ListVerdictsRequest(deployment=DEPLOYMENT, verdict="maybe")
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await client.stub.ListVerdicts(request, metadata=client.metadata)
    assert unknown.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_verdicts_carry_their_evidence(monitor: Monitor, client: Client) -> None:
    await monitor.serve(1, canary=2)
    await pairs(monitor, 60, candidate=0.5, champion=0.9)
    await monitor.pass_time(1)
    request = monitor_pb2.ListVerdictsRequest(deployment=DEPLOYMENT, page_size=1)
    (verdict,) = (await client.stub.ListVerdicts(request, metadata=client.metadata)).verdicts
    assert (verdict.verdict, verdict.version, verdict.rollout) == ("roll_back", 2, "r-2")
    assert orjson.loads(verdict.evidence_json)[0]["decision"] == "worse"


async def test_health_is_shown_by_version(monitor: Monitor, client: Client) -> None:
    await monitor.serve(1)
    await monitor.log(monitor.record(1, request="q"), monitor.record(1, failed=True))
    await monitor.feedback("q", "a")
    request = monitor_pb2.GetDeploymentHealthRequest(deployment=DEPLOYMENT)
    (health,) = (await client.stub.GetHealth(request, metadata=client.metadata)).versions
    assert (health.version, health.requests, health.errors, health.labelled, health.accuracy) == (1, 2, 1, 1, 1.0)
    assert health.accuracy_ci95.low < 1.0


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("GetHealth", monitor_pb2.GetDeploymentHealthRequest),
        ("ListWindows", monitor_pb2.ListWindowsRequest),
        ("GetWindow", monitor_pb2.GetWindowRequest),
        ("ListVerdicts", monitor_pb2.ListVerdictsRequest),
    ],
)
async def test_every_method_asks_for_a_key_and_knows_its_deployments(
    client: Client, method: str, request_type: type[monitor_pb2.ListWindowsRequest]
) -> None:
    call = getattr(client.stub, method)
    with pytest.raises(grpc.aio.AioRpcError) as keyless:
        await call(request_type(deployment=DEPLOYMENT))
    assert keyless.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await call(request_type(deployment="elsewhere"), metadata=client.metadata)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
