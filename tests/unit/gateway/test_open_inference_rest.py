"""The REST API of the Open Inference Protocol, without a socket."""

import json
from typing import Any

import pytest

from services.contracts.access import KeyRole
from services.contracts.errors import InternalError, MillraceError
from services.gateway.errors import DeploymentNotReady, ExtensionNotOffered, RoutesNotRead, VersionNotServed
from services.gateway.inbound.oip.infer import words
from services.gateway.inbound.oip.rest import OpenInferenceApi
from services.gateway.inbound.sampling import Sampler
from tests.unit.gateway.fakes import GatewayFleet, deployment, report, target
from tests.unit.gateway.rest import LIMITS, api_of, send

NOT_READ = (503, {"error": words(RoutesNotRead(retry_after_seconds=1.0))})
REQUEST = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}


class Unheard:
    """A registry that no test here may reach."""

    async def call(self, method: str, request: bytes, metadata: Any, *, tenant: str, seconds: float) -> bytes:
        raise AssertionError(f"{method} was called")

    def stream(self, method: str, request: bytes, metadata: Any, *, tenant: str, seconds: float) -> Any:
        raise AssertionError(f"{method} was called")


def served() -> GatewayFleet:
    fleet = GatewayFleet()
    fleet.routes.deployment_changed("default", deployment(target(1)), {})
    fleet.routes.replica_reported(report("r1", 1), at=0)
    return fleet


def adapter(fleet: GatewayFleet) -> OpenInferenceApi:
    return OpenInferenceApi(fleet.ports, Sampler(0.0, fleet.ports.generator), LIMITS, api_of(fleet.ports, Unheard()))


async def call(
    fleet: GatewayFleet,
    verb: str,
    path: str,
    body: Any = None,
    *,
    role: KeyRole = KeyRole.ADMIN,
    tenant: str = "default",
) -> tuple[int, Any]:
    """Status and body; an error too, whichever way it comes."""
    try:
        reply = await send(adapter(fleet), verb, path, body, role=role, tenant=tenant)
    except MillraceError as error:
        status, content, _ = adapter(fleet).refused(error)
        return status, json.loads(content)
    return reply.status, reply.body


@pytest.mark.parametrize(
    ("verb", "path", "enough", "too_weak"),
    [
        ("GET", "/v2/models/news", KeyRole.VIEWER, None),
        ("POST", "/v2/repository/index", KeyRole.VIEWER, None),
        ("POST", "/v2/models/news/infer", KeyRole.CLIENT, KeyRole.VIEWER),
        ("POST", "/v2/repository/models/news/load", KeyRole.OPERATOR, KeyRole.CLIENT),
        ("POST", "/v2/repository/models/news/unload", KeyRole.OPERATOR, KeyRole.CLIENT),
    ],
)
async def test_a_role_may_do_its_own_and_no_more(
    verb: str, path: str, enough: KeyRole, too_weak: KeyRole | None
) -> None:
    fleet = served()
    if path.endswith("unload"):
        fleet.routes.deployment_changed("default", deployment(generation=2), {})
    body = REQUEST if path.endswith("infer") else None
    assert (await call(fleet, verb, path, body, role=enough))[0] == 200
    if too_weak is not None:
        assert (await call(fleet, verb, path, body, role=too_weak))[0] == 403


async def test_another_tenants_model_is_no_model() -> None:
    fleet = served()
    for verb, path in (("GET", "/v2/models/news"), ("POST", "/v2/models/news/infer"), ("GET", "/v2/models/news/ready")):
        assert (await call(fleet, verb, path, REQUEST, tenant="other"))[0] == 404
    assert await call(fleet, "POST", "/v2/repository/index", tenant="other") == (200, [])
    assert await call(fleet, "GET", "/v2/models/stats", tenant="other") == (200, {"model_stats": []})


async def test_before_the_table_is_read_not_to_know_a_model_says_nothing_about_it() -> None:
    fleet = GatewayFleet(routes_read=False)
    for path in ("", "/ready", "/config", "/stats"):
        assert await call(fleet, "GET", f"/v2/models/news{path}") == NOT_READ
    for verb in ("load", "unload"):
        assert await call(fleet, "POST", f"/v2/repository/models/news/{verb}") == NOT_READ


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (
            VersionNotServed(version=2, deployment="news"),
            404,
            "Version 2 of 'news' is not being served. [version] (GET",
        ),
        (ExtensionNotOffered(name="log settings"), 501, "for log settings is not offered"),
        (InternalError(), 500, "Something went wrong inside."),
    ],
)
def test_a_refusal_is_one_string(error: MillraceError, status: int, words: str) -> None:
    response, body, _ = adapter(GatewayFleet()).refused(error)
    assert response == status
    assert words in json.loads(body)["error"]


def test_a_refusal_keeps_the_headers_that_clients_act_on() -> None:
    error = DeploymentNotReady(deployment="news", retry_after_seconds=3.0)
    status, _, headers = adapter(GatewayFleet()).refused(error)
    assert status == 503
    assert dict(headers)[b"retry-after"] == b"3"
