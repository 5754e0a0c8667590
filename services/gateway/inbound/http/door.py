"""The REST door: who may come in by which name, and where each path goes."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson

from services.contracts.errors import Refusal
from services.gateway.domain.access import check_role
from services.gateway.errors import BodyTooLarge, ForeignHost, ForeignOrigin, Malformed
from services.gateway.inbound.http import classify
from services.gateway.inbound.http.answers import refused
from services.gateway.inbound.http.body import ClientGone, discard, read_headers
from services.gateway.inbound.http.control import ControlDoor
from services.gateway.telemetry import HTTP_REFUSED
from services.kit.auth import Keyring
from services.kit.http import Receive, Scope, Send, internal_problem, respond
from services.kit.log import logger

OPENAPI_PATH: Final = "/openapi.json"
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.IGNORECASE)
_ORIGIN: Final = re.compile(rf"https?://{_HOST.pattern}", re.IGNORECASE)


class RestDoor:
    """Raw ASGI. The order: the name it was called by, the key, then the path; so a stranger learns no paths."""

    def __init__(
        self,
        keyring: Keyring,
        hosts: Collection[str],
        hot: classify.ClassifyDoor,
        control: ControlDoor,
        document: Callable[[], dict[str, Any]],
    ) -> None:
        self._keyring = keyring
        self._hosts = frozenset(host.lower() for host in hosts)
        self._hot = hot
        self._control = control
        self._document = document
        self._known_hosts: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._serve(scope, receive, sending)
        except ClientGone:
            return
        except Refusal as refusal:
            HTTP_REFUSED.labels(refusal.code).inc()
            if isinstance(refusal, BodyTooLarge):
                await discard(scope, receive)
            await respond(send, *refused(refusal))
        except Exception:
            logger.exception("a request failed inside")
            if started:
                raise
            await respond(send, *internal_problem())

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = read_headers(scope)
        self._check_names(headers)
        principal = self._keyring.authenticate(headers.get(b"authorization"))
        path: str = scope["path"]
        if scope["method"] == "POST" and path.startswith(classify.PREFIX) and path.endswith(classify.SUFFIX):
            check_role(principal, "Classify")
            await self._hot.serve(path, headers, principal, receive, send)
        elif path == OPENAPI_PATH and scope["method"] == "GET":
            await respond(send, 200, orjson.dumps(self._document()))
        else:
            await self._control.serve(read_path(scope), scope, headers, principal, receive, send)

    def _check_names(self, headers: Mapping[bytes, str]) -> None:
        """Raises ForeignHost (DNS rebinding) or ForeignOrigin (another site's page)."""
        host = headers.get(b"host", "")
        if host not in self._known_hosts:
            if _name(_HOST, host) not in self._hosts:
                raise ForeignHost(host=host[:100])
            if len(self._known_hosts) < 100:
                self._known_hosts.add(host)
        origin = headers.get(b"origin")
        if origin is not None and _name(_ORIGIN, origin) not in self._hosts:
            raise ForeignOrigin(origin=origin[:100])


def _name(shape: re.Pattern[str], value: str) -> str:
    """The host's name, or nothing where the header has any other shape."""
    hit = shape.fullmatch(value)
    return hit["name"].strip("[]").lower() if hit else ""


def read_path(scope: Scope) -> str:
    """The decoded path. Raises Malformed when a segment climbs, hides a slash or is not UTF-8."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    segments = [unquote_to_bytes(segment) for segment in raw.split(b"/")]
    for segment in segments:
        if segment in (b".", b"..") or any(bad in segment for bad in (b"/", b"\\", b"\x00")):
            raise Malformed(problem="a path segment is not a name", at="path")
    try:
        return b"/".join(segments).decode()
    except UnicodeDecodeError as error:
        raise Malformed(problem="the path is not UTF-8", at="path") from error
