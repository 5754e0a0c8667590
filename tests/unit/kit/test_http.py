"""The HTTP door: one shape of errors, and what is open."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.contracts.errors import (
    Conflict,
    InternalError,
    Kind,
    MillraceError,
    NotFound,
    Overloaded,
    Unauthenticated,
)
from services.kit.core.clock import VirtualClock
from services.kit.core.telemetry import OUTBOX_DEPTH
from services.kit.identity.auth import Keyring, ensure_keys, read_key
from services.kit.transport.http import STATUS, App, Operations, problem, respond
from tests.fixtures.metrics import Scraped

BY_KIND = {cls.kind: cls for cls in MillraceError.__subclasses__() if cls.__module__ == "services.contracts.errors"}
FACTS = {"problem": "p", "what": "it", "limit": "1", "queued": 3, "seconds": 2}


class SentRequest:
    """Calls an ASGI app once and keeps what it answered."""

    def __init__(self, app: App, key: str = "") -> None:
        self._app, self._key = app, key
        self.status, self.body, self.headers = 0, b"", dict[bytes, bytes]()

    async def __call__(self, path: str, method: str = "GET") -> "SentRequest":
        headers = [(b"authorization", f"Bearer {self._key}".encode())] if self._key else []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status, self.headers = message["status"], dict(message["headers"])
            else:
                self.body += message["body"]

        await self._app({"type": "http", "path": path, "method": method, "headers": headers}, receive, send)
        return self


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    ensure_keys(tmp_path)
    return tmp_path


def operations(keys: Path, *, ready: bool = True, inner: App | None = None) -> Operations:
    return Operations(Keyring(keys, VirtualClock()), {"started": lambda: True, "broker": lambda: ready}, inner)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.INTERNAL])
def test_every_kind_of_refusal_has_its_status_and_the_one_shape(kind: Kind) -> None:
    error = BY_KIND[kind](field="name", hint="do this", **FACTS)
    status, body, headers = problem(error)
    assert status == STATUS[kind]
    assert orjson.loads(body) == {
        "error": {"code": error.code, "message": str(error), "field": "name", "hint": "do this"}
    }
    assert (b"retry-after" in dict(headers)) == error.retryable


def test_each_kind_has_a_status_of_its_own() -> None:
    assert set(STATUS) == set(Kind)
    assert len(set(STATUS.values())) == len(Kind)


def test_what_clients_need_stands_in_the_headers() -> None:
    assert dict(problem(Unauthenticated())[2])[b"www-authenticate"] == b"Bearer"
    assert dict(problem(Conflict())[2])[b"x-should-retry"] == b"false"
    assert dict(problem(Overloaded(queued=1, retry_after_seconds=7.4))[2])[b"retry-after"] == b"8"  # never too early


def test_an_error_of_ours_tells_nothing_of_the_inside() -> None:
    status, body, _ = problem(InternalError())
    assert status == 500
    assert orjson.loads(body)["error"]["code"] == "internal_error"


async def test_health_is_open_and_readiness_names_its_checks(keys: Path) -> None:
    for method in ("GET", "HEAD"):
        assert (await SentRequest(operations(keys))("/healthz", method)).status == 200
    ready = await SentRequest(operations(keys))("/readyz")
    assert (ready.status, orjson.loads(ready.body)["status"]) == (200, "ready")
    waiting = await SentRequest(operations(keys, ready=False))("/readyz")
    assert waiting.status == 503
    assert orjson.loads(waiting.body) == {"status": "not ready", "checks": {"started": True, "broker": False}}


async def test_metrics_need_a_key(keys: Path, scraped: Scraped) -> None:
    refused = await SentRequest(operations(keys))("/metrics")
    assert (refused.status, orjson.loads(refused.body)["error"]["code"]) == (401, "unauthenticated")
    OUTBOX_DEPTH.set(3)
    shown = await SentRequest(operations(keys), read_key(keys))("/metrics")
    assert shown.status == 200
    assert b"\nmillrace_outbox_depth 3.0\n" in shown.body
    assert scraped.value(OUTBOX_DEPTH) == 3


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/", "GET"),
        ("/nothing", "GET"),
        ("/healthz", "POST"),
        ("/metrics", "POST"),
        ("/readyz/", "GET"),
        ("//metrics", "GET"),
    ],
)
async def test_an_unknown_route_is_401_without_a_key_and_404_with_one(keys: Path, path: str, method: str) -> None:
    assert (await SentRequest(operations(keys))(path, method)).status == 401
    known = await SentRequest(operations(keys), read_key(keys))(path, method)
    assert (known.status, orjson.loads(known.body)["error"]["code"]) == (404, "no_such_route")


async def test_the_services_own_app_answers_the_rest_and_its_errors_are_mapped(keys: Path) -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/own":
            raise NotFound
        await respond(send, 200, b"{}")

    assert (await SentRequest(operations(keys, inner=inner))("/own")).status == 200
    assert (await SentRequest(operations(keys, inner=inner))("/other")).status == 404
    sized = await SentRequest(operations(keys, inner=inner))("/own")
    assert sized.headers[b"content-length"] == b"2"
