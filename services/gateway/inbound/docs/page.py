"""`/docs/`: Swagger UI over our own document, from files that came with a package; no other host is asked.

A browser cannot send `Bearer` when a page is opened, so here, and only here, the password of HTTP Basic is the key.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

import orjson

from services.contracts.errors import Kind, MillraceError
from services.gateway.errors import MethodNotAllowed, UnknownRoute
from services.gateway.inbound.http.responses import refused
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.kit.transport.http import JSON, App, Header, Receive, Scope, Send, respond

ROOT: Final = "/docs"
DOCUMENT: Final = f"{ROOT}/openapi.json"
OURS: Final = Path(__file__).parent
PACKAGE: Final = "fastapi-offline"
"""It carries the files of Swagger UI 5, which reads OpenAPI 3.1. Its code is not used."""

FILES: Final = {
    f"{ROOT}/": ("page.html", b"text/html; charset=utf-8"),
    f"{ROOT}/page.css": ("page.css", b"text/css; charset=utf-8"),
    f"{ROOT}/page.js": ("page.js", b"text/javascript; charset=utf-8"),
    f"{ROOT}/swagger-ui.css": ("swagger-ui.css", b"text/css; charset=utf-8"),
    f"{ROOT}/swagger-ui-bundle.js": ("swagger-ui-bundle.js", b"text/javascript; charset=utf-8"),
    f"{ROOT}/favicon.png": ("favicon.png", b"image/png"),
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDS: Final[tuple[Header, ...]] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"private, no-cache"),
)
REALM: Final[Header] = (b"www-authenticate", b'Basic realm="Millrace: the password is an API key", charset="UTF-8"')


class DocsPage:
    """The page, its files and the document, for every role that has a key."""

    def __init__(self, document: Callable[[], dict[str, Any]]) -> None:
        self._document = document
        self._theirs = Path(str(distribution(PACKAGE).locate_file("fastapi_offline/static")))

    async def serve(self, request: AdmittedRequest) -> None:
        if request.path not in (ROOT, DOCUMENT, *FILES):
            raise UnknownRoute
        if request.verb not in ("GET", "HEAD"):
            raise MethodNotAllowed(method=request.verb[:20], allowed="GET, HEAD")
        if request.path == ROOT:  # the browser keeps the key for what lies below the page's folder
            await respond(request.send, 308, b"", [(b"location", f"{ROOT}/".encode()), *GUARDS])
        elif request.path == DOCUMENT:
            await respond(request.send, 200, orjson.dumps(await asyncio.to_thread(self._document)), [JSON, *GUARDS])
        else:
            await self._send_file(request, *FILES[request.path])

    def refused(self, error: MillraceError) -> tuple[int, bytes, list[Header]]:
        status, body, headers = refused(error)
        if error.kind is Kind.UNAUTHENTICATED:
            headers = [*(header for header in headers if header[0] != REALM[0]), REALM]
        return status, body, headers

    async def _send_file(self, request: AdmittedRequest, name: str, kind: bytes) -> None:
        ours = OURS / name
        content, tag = await asyncio.to_thread(_read, ours if ours.exists() else self._theirs / name)
        headers: list[Header] = [(b"content-type", kind), (b"etag", tag.encode()), *GUARDS]
        if request.headers.get(b"if-none-match") == tag:
            await request.send({"type": "http.response.start", "status": 304, "headers": headers})
            await request.send({"type": "http.response.body", "body": b""})
        else:
            await respond(request.send, 200, content, headers)


def _read(path: Path) -> tuple[bytes, str]:
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


class BrowserKey:
    """Under `/docs`, turns the password of HTTP Basic into the bearer key that the edge asks for."""

    def __init__(self, inner: App) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == ROOT or scope["path"].startswith(f"{ROOT}/"):
            scope = {**scope, "headers": [_translated(*header) for header in scope["headers"]]}
        await self._inner(scope, receive, send)


def _translated(name: bytes, value: bytes) -> Header:
    scheme, _, encoded = value.partition(b" ")
    if name != b"authorization" or scheme.lower() != b"basic":
        return name, value
    try:
        _, _, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return name, value
    return name, b"Bearer " + password
