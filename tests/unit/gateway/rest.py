"""The gateway's FastAPI application in this process: a caller who was admitted, and no socket."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.contracts.access import KeyRole
from services.contracts.errors import MillraceError
from services.gateway.inbound.http.api import GatewayApi, Parts
from services.gateway.inbound.http.calls import Control
from services.gateway.inbound.http.request_reader import BodyLimits, read_headers
from services.gateway.inbound.http.responses import refused
from services.gateway.inbound.http.rest_app import AdmittedRequest, ProtocolAdapter
from services.gateway.inbound.oip.models import Models
from services.gateway.inbound.oip.repository import Repository
from services.gateway.inbound.oip.routes import OpenInference
from services.gateway.inbound.sampling import Sampler
from services.gateway.ports import Ports
from services.kit.identity.auth import Principal
from services.kit.transport.http import Header

LIMITS = BodyLimits(bytes=10_000, seconds=1.0)


@dataclass
class RecordingUpstreams:
    """The other services: they answer every method with an empty message."""

    calls: list[tuple[str, bytes]] = field(default_factory=list)

    async def call(self, method: str, request: bytes, metadata: Any, *, tenant: str, seconds: float) -> bytes:
        self.calls.append((method, request))
        return b""

    async def stream(
        self, method: str, request: bytes, metadata: Any, *, tenant: str, seconds: float
    ) -> AsyncIterator[bytes]:
        self.calls.append((method, request))
        yield b""


def api_of(ports: Ports, upstreams: Any) -> GatewayApi:
    models, sampler = Models(ports), Sampler(0.0, ports.generator)
    control = Control(ports, upstreams, LIMITS, follow_seconds=1.0)
    open_inference = OpenInference(models, Repository(ports, upstreams, models), LIMITS)
    return GatewayApi(Parts(control, sampler, open_inference, {}))


@dataclass
class NativeAdapter:
    """Everything by FastAPI, and errors in our own shape."""

    api: GatewayApi

    async def serve(self, request: AdmittedRequest) -> None:
        await self.api.serve(request, self.refused)

    def refused(self, error: MillraceError) -> tuple[int, bytes, list[Header]]:
        return refused(error)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: Any


async def send(
    adapter: ProtocolAdapter,
    verb: str,
    target: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    role: KeyRole = KeyRole.ADMIN,
    tenant: str = "default",
) -> Reply:
    """Raises what is refused before FastAPI is reached."""
    messages: list[Any] = []
    path, _, query = target.partition("?")
    sent = {"content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http",
        "method": verb,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(body).encode() if body is not None else b""}

    async def sending(message: Any) -> None:
        messages.append(message)

    principal = Principal("key", role, tenant)
    await adapter.serve(AdmittedRequest(scope, read_headers(scope), principal, receive, sending, deadline=30.0))
    content = b"".join(message.get("body", b"") for message in messages[1:])
    received = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return Reply(messages[0]["status"], received, json.loads(content) if content else None)
