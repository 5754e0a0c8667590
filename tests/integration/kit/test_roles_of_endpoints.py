"""Every gRPC method of every service, with every kind of key: the kit's door is each room's own."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.contracts.access import METHOD_ROLES, KeyRole, suffices
from services.contracts.errors import Kind
from services.contracts.rpc import trainer_pb2, trainer_pb2_grpc
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import Keyring
from services.kit.identity.keys import KeyringFile, NewKey
from services.kit.transport.rpc import RpcServer, channel, metadata, refusal_from
from tests.contracts.test_access import every_method
from tests.fixtures.callers import Callers, make_callers
from tests.laws.source import ROOT, python_sources
from tests.waiting import LIMIT_SECONDS

METHODS = dict(every_method())
SERVED = {path: role for path, role in METHOD_ROLES.items() if path in METHODS or "ServerReflection" in path}
LOGS = "/millrace.v1.TrainerService/GetRunLogs"


class Everything(grpc.GenericRpcHandler):
    """Answers every method of every service with an empty message."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = METHODS.get(handler_call_details.method)
        if method is None:
            return None

        async def one(request: Any, context: Any) -> bytes:
            return b""

        async def many(request: Any, context: Any) -> AsyncIterator[bytes]:
            yield b""
            if handler_call_details.method == LOGS:
                await asyncio.Event().wait()

        shape = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        build = getattr(grpc, f"{shape}_rpc_method_handler")
        return build(many if method.server_streaming else one)


class Endpoint:
    def __init__(self, keys: Path, callers: Callers, link: grpc.aio.Channel) -> None:
        self.keys = KeyringFile(keys, SystemClock())
        self.callers = callers
        self.link = link

    def open(self, path: str, key: str | None) -> Any:
        """A call of that method with an empty message, whatever its shape."""
        sent = metadata(key) if key else ()
        method = METHODS.get(path)
        reflection = "ServerReflection" in path
        streams_in = reflection if method is None else method.client_streaming
        streams_out = reflection if method is None else method.server_streaming
        name = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
        call: Any = getattr(self.link, name)(path)
        return call(metadata=sent) if streams_in else call(b"", metadata=sent)

    async def code(self, path: str, key: str | None) -> grpc.StatusCode:
        """How a call begins: OK, or what it was refused with."""
        call = self.open(path, key)
        try:
            if hasattr(call, "done_writing"):
                await call.done_writing()
            if hasattr(call, "read"):
                await call.read()
                if not call.done():
                    call.cancel()
                    return grpc.StatusCode.OK
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return error.code()
        except asyncio.InvalidStateError:  # it was refused before its side was closed
            return await call.code()  # type: ignore[no-any-return]
        return await call.code()  # type: ignore[no-any-return]


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    callers = make_callers(tmp_path)
    server = RpcServer(Keyring(tmp_path, SystemClock()), "127.0.0.1", 0)
    server.add_generic([Everything()], sorted({path.split("/")[1] for path in METHODS}))
    await server.open()
    async with channel(server.address) as link:
        yield Endpoint(tmp_path, callers, link)
    await server.close()


async def test_every_method_refuses_every_stranger(endpoint: Endpoint) -> None:
    for path in SERVED:
        for name, key in endpoint.callers.strangers.items():
            assert await endpoint.code(path, key) is grpc.StatusCode.UNAUTHENTICATED, (path, name)


async def test_every_method_lets_in_the_roles_that_suffice_and_no_other(endpoint: Endpoint) -> None:
    requested = 0
    for path, needed in SERVED.items():
        for role, key in endpoint.callers.by_role.items():
            expected = grpc.StatusCode.OK if suffices(role, needed) else grpc.StatusCode.PERMISSION_DENIED
            assert await endpoint.code(path, key) is expected, (path, role)
            requested += 1
    assert requested == len(SERVED) * len(KeyRole)


async def test_a_role_that_is_too_weak_learns_which_one_would_do(endpoint: Endpoint) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await endpoint.open("/millrace.v1.RegistryService/SetAlias", endpoint.callers.by_role[KeyRole.CLIENT])
    error = refusal_from(refused.value)
    assert (error.kind, error.code) == (Kind.FORBIDDEN, "role_too_weak")
    assert error.body().hint == "use a key with the role 'operator'"


async def test_an_endpoint_for_services_lets_nobody_else_in(tmp_path: Path) -> None:
    """Inference knows no tenants: the gateway asks it, for those whom it has let in."""
    callers = make_callers(tmp_path)
    server = RpcServer(Keyring(tmp_path, SystemClock()), "127.0.0.1", 0, services_only=True)
    server.add_generic([Everything()], ["millrace.v1.InferenceService"])
    await server.open()
    async with channel(server.address) as link:
        endpoint = Endpoint(tmp_path, callers, link)
        for path in ("/millrace.v1.InferenceService/Classify", "/millrace.v1.InferenceService/Stream"):
            for role, key in callers.by_role.items():
                allowed = grpc.StatusCode.OK if role is KeyRole.SERVICE else grpc.StatusCode.PERMISSION_DENIED
                assert await endpoint.code(path, key) is allowed, (path, role)
    await server.close()


async def test_an_open_stream_ends_soon_after_its_key_is_revoked(endpoint: Endpoint) -> None:
    record, secret = endpoint.keys.create(NewKey(KeyRole.VIEWER, "default"), by="test")
    await asyncio.sleep(1.1)
    stub = trainer_pb2_grpc.TrainerServiceStub(endpoint.link)
    mine: Any = stub.GetRunLogs(trainer_pb2.GetRunLogsRequest(run="r", follow=True), metadata=metadata(secret))
    other: Any = stub.GetRunLogs(
        trainer_pb2.GetRunLogsRequest(run="r", follow=True), metadata=metadata(endpoint.callers.by_role[KeyRole.VIEWER])
    )
    for call in (mine, other):
        await call.read()
    endpoint.keys.revoke(record.id, tenant="default", by="test")
    started = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await mine.read()
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert time.monotonic() - started < LIMIT_SECONDS
    assert not other.done()
    other.cancel()


async def test_a_stream_that_waits_for_its_caller_ends_too(endpoint: Endpoint) -> None:
    """Messages are read by the behaviour itself there, and none comes."""
    record, secret = endpoint.keys.create(NewKey(KeyRole.CLIENT, "default"), by="test")
    await asyncio.sleep(1.1)
    call = endpoint.open("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", secret)
    await asyncio.sleep(0.1)
    endpoint.keys.revoke(record.id, tenant="default", by="test")
    async with asyncio.timeout(LIMIT_SECONDS):
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


def test_there_is_no_other_grpc_server_than_the_kits() -> None:
    ours = [path for path in python_sources() if path.parts[0] == "services"]
    assert [str(path) for path in ours if "aio.server(" in (ROOT / path).read_text()] == [
        "services/kit/transport/rpc.py"
    ]
