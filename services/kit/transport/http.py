"""HTTP doors: the one mapping from refusals to status codes, health and metrics, and serving on a loop."""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import orjson
import uvicorn

from services.contracts.access import METRICS_ROLE
from services.contracts.errors import Kind, MillraceError, NotFound, Unavailable
from services.kit.core.log import logger
from services.kit.core.metrics import scrape
from services.kit.identity.auth import Keyring, require

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

STATUS: Final = {
    Kind.INVALID: 422,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.STALE: 412,
    Kind.TOO_LARGE: 413,
    Kind.UNSUPPORTED: 415,
    Kind.OVERLOADED: 429,
    Kind.UNAVAILABLE: 503,
    Kind.TIMED_OUT: 504,
    Kind.INTERNAL: 500,
}
JSON: Final[Header] = (b"content-type", b"application/json")
GRACE_SECONDS: Final = 10


class NoSuchRoute(NotFound):
    """Nothing is served at this path."""

    hint = "'/openapi.json' of the gateway lists every path"


class PortTaken(Unavailable):
    """The port {port} cannot be listened on."""

    hint = "another process has it; choose another one, or 0 for any free one"


def problem(error: MillraceError) -> tuple[int, bytes, list[Header]]:
    """Status, body and headers of a refusal, in the one shape `{"error": {...}}`."""
    body = error.body()
    headers = [JSON]
    if error.kind is Kind.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retryable:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after or 1))).encode()))
    if error.kind in (Kind.CONFLICT, Kind.STALE):
        headers.append((b"x-should-retry", b"false"))
    return STATUS[error.kind], orjson.dumps({"error": body.model_dump(exclude_none=True)}), headers


async def respond(send: Send, status: int, body: bytes, headers: Iterable[Header] = (JSON,)) -> None:
    sized = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body})


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of this lower-case name."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


class Operations:
    """`/healthz` and `/readyz` for anyone, `/metrics` for an operator's key; wraps a room's own app, if it has one.

    Ready means every named check holds; the answer lists them.
    """

    def __init__(self, keyring: Keyring, checks: dict[str, Callable[[], bool]], inner: App | None = None) -> None:
        self._keyring = keyring
        self._checks = checks
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        try:
            if path == "/healthz" and method in ("GET", "HEAD"):
                await respond(send, 200, b'{"status":"alive"}')
            elif path == "/readyz" and method in ("GET", "HEAD"):
                states = {name: check() for name, check in self._checks.items()}
                ready = all(states.values())
                body = orjson.dumps({"status": "ready" if ready else "not ready", "checks": states})
                await respond(send, 200 if ready else 503, body)
            elif path == "/metrics" and method == "GET":
                require(self._keyring.authenticate(header(scope, b"authorization")), METRICS_ROLE)
                body, content_type = await asyncio.to_thread(scrape)
                await respond(send, 200, body, [(b"content-type", content_type.encode())])
            elif self._inner is not None:
                await self._inner(scope, receive, send)
            else:
                self._keyring.authenticate(header(scope, b"authorization"))
                raise NoSuchRoute
        except MillraceError as error:
            await respond(send, *problem(error))


class _Server(uvicorn.Server):
    """Uvicorn on the service's own loop; signals belong to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Binds at once, so that the port is known; serves between `open` and `close`, which drains."""

    def __init__(self, app: App, host: str, port: int) -> None:
        try:
            self._socket = bind(host, port)
        except OSError as error:
            raise PortTaken(port=port) from error
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_SECONDS,
            http="httptools",
            ws="none",
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.01)
        logger.info("HTTP on %s", self.address)

    async def close(self) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only where the protocol is named.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((host, port))
    opened.setblocking(False)
    return opened
