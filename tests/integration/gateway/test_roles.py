"""Every endpoint of the gateway with every kind of key: REST routes and methods, documents, and gRPC methods."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from services.contracts.access import METHOD_ROLES, METRICS_ROLE, OIP_NOT_OFFERED, KeyRole, suffices
from services.contracts.rpc import inference_pb2
from services.gateway.inbound.docs import page
from services.gateway.inbound.grpc_services import INFERENCE
from tests.fixtures.callers import Callers, make_callers
from tests.fixtures.rest_routes import (
    CONTROL_ROUTES,
    OPEN_INFERENCE_ROUTES,
    OPENAI_ROUTES,
    OTHER_ROUTES,
    is_keyless,
    role_of,
    verb_of,
)
from tests.integration.gateway.gateway import GatewayUnderTest, open_gateway, target
from tests.integration.kit.test_roles_of_endpoints import SERVED, Endpoint
from tests.waiting import LIMIT_SECONDS

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
REFUSED = (401, 403)
NOT_OFFERED = {f"/inference.GRPCInferenceService/{name}" for name in OIP_NOT_OFFERED}


@dataclass(frozen=True)
class RoutedMethod:
    """One method of one path, and the role it needs."""

    verb: str
    path: str
    needed: KeyRole


REPLICAS_OWN = "/millrace.v1.ReplicaService/Predict"
"""The one method that no client may reach: replicas serve it, to services alone."""


def methods() -> list[RoutedMethod]:
    """From the routes that FastAPI serves and describes."""
    routes = [
        one for one in (*CONTROL_ROUTES, *OTHER_ROUTES, *OPENAI_ROUTES, *OPEN_INFERENCE_ROUTES) if not is_keyless(one)
    ]
    endpoints = [
        RoutedMethod(verb_of(one), re.sub(r"{\w+}", "news", one.path.replace("{version}", "1")), role_of(one))
        for one in routes
    ]
    endpoints += [RoutedMethod("GET", path, KeyRole.VIEWER) for path in (page.ROOT, page.DOCUMENT, *page.FILES)]
    return [
        *endpoints,
        RoutedMethod("GET", "/openapi.json", KeyRole.VIEWER),
        RoutedMethod("GET", "/metrics", METRICS_ROLE),
    ]


@dataclass
class Knocking:
    gateway: GatewayUnderTest
    callers: Callers
    client: httpx.AsyncClient

    async def knock(self, verb: str, path: str, key: str | None) -> httpx.Response:
        headers = {"request-timeout-ms": "1000"} | ({"authorization": f"Bearer {key}"} if key else {})
        return await self.client.request(verb, path, headers=headers)


@pytest.fixture
async def knocking(tmp_path: Path, embedded_bootstrap: str) -> AsyncIterator[Knocking]:
    callers = make_callers(tmp_path / "keys")
    async with open_gateway(tmp_path, embedded_bootstrap) as gateway:
        async with httpx.AsyncClient(base_url=f"http://{gateway.rest}", timeout=LIMIT_SECONDS) as client:
            yield Knocking(gateway, callers, client)


async def test_every_path_and_method_refuses_every_stranger(knocking: Knocking) -> None:
    """Whether or not there is such a door: a stranger learns no paths."""
    for path in sorted({method.path for method in methods()} | {"/", "/nothing", "/v1", "/v2"}):
        for verb in METHODS:
            for name, key in knocking.callers.strangers.items():
                reply = await knocking.knock(verb, path, key)
                assert reply.status_code == 401, (verb, path, name, reply.status_code)
                scheme = "Basic" if path.startswith(page.ROOT) else "Bearer"  # a browser asks for a password
                assert reply.headers["www-authenticate"].split()[0] == scheme


async def test_every_route_lets_in_the_roles_that_suffice_and_no_other(knocking: Knocking) -> None:
    calls = 0
    for method in methods():
        for role, key in knocking.callers.by_role.items():
            reply = await knocking.knock(method.verb, method.path, key)
            if suffices(role, method.needed):
                assert reply.status_code not in REFUSED, (method, role, reply.text)
            else:
                assert reply.status_code == 403, (method, role, reply.text)
                assert f"the role '{role}' may not do that" in reply.text
            calls += 1
    assert calls > 100


async def test_every_grpc_method_refuses_strangers_and_roles_that_are_too_weak(knocking: Knocking) -> None:
    endpoint = Endpoint(knocking.gateway.home / "keys", knocking.callers, knocking.gateway.channel)
    refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    offered = {path: role for path, role in METHOD_ROLES.items() if path in SERVED or path in NOT_OFFERED}
    del offered[REPLICAS_OWN]
    for path, needed in offered.items():
        for name, key in knocking.callers.strangers.items():
            assert await endpoint.code(path, key) is grpc.StatusCode.UNAUTHENTICATED, (path, name)
        for role, key in knocking.callers.by_role.items():
            code = await endpoint.code(path, key)
            if suffices(role, needed):
                assert code not in refused, (path, role)
            else:
                assert code is grpc.StatusCode.PERMISSION_DENIED, (path, role)


async def test_what_another_tenant_has_is_404(knocking: Knocking) -> None:
    gateway, stranger = knocking.gateway, knocking.callers.elsewhere
    await gateway.replica("replica-1", 1)
    await gateway.deploy(target(1))
    await gateway.serves(1)
    headers = {"authorization": f"Bearer {stranger}"}
    for path, body in (
        ("classify", {"texts": ["a"]}),
        ("embed", {"texts": ["a"]}),
        ("feedback", {"request_id": "r", "label": "l"}),
    ):
        reply = await knocking.client.post(f"/api/v1/deployments/news/{path}", json=body, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_deployment"), path
    gateway.metadata = (("authorization", f"Bearer {stranger}"),)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.rpc_method(INFERENCE, "Classify")(inference_pb2.ClassifyRequest(deployment="news", texts=["a"]))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    mine = (await knocking.knock("GET", "/api/v1/keys", knocking.callers.by_role[KeyRole.ADMIN])).json()["keys"]
    for one in mine:
        reply = await knocking.knock("POST", f"/api/v1/keys/{one['id']}:revoke", stranger)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_key")
