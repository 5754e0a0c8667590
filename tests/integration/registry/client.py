"""The registry's gRPC door, with a real server and key."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.contracts.errors import Kind
from services.contracts.rpc.registry_pb2_grpc import RegistryServiceStub
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import API_KEY_FILE, Keyring, ensure_keys, read_key
from services.kit.transport.rpc import RpcServer, channel, metadata, refusal_from
from services.registry.inbound import grpc as registry_grpc
from tests.integration.registry.fixture import Registry


@dataclass
class RegistryClient:
    registry: Registry
    stub: Any
    key: str

    async def call(self, method: str, request: Any, *, key: str = "") -> Any:
        more = (("idempotency-key", key),) if key else ()
        return await getattr(self.stub, method)(request, metadata=(*metadata(self.key), *more))

    async def refused(self, call: Awaitable[Any]) -> tuple[Kind, str, str | None]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        error = refusal_from(raised.value)
        return error.kind, error.code, error.body().field


@asynccontextmanager
async def open_client(registry: Registry, folder: Path) -> AsyncIterator[RegistryClient]:
    ensure_keys(folder)
    server = RpcServer(Keyring(folder, SystemClock()), "127.0.0.1", 0)
    registry_grpc.serve(server, registry.ports)
    await server.open()
    async with channel(server.address) as link:
        yield RegistryClient(registry, RegistryServiceStub(link), read_key(folder, API_KEY_FILE))
    await server.close()
