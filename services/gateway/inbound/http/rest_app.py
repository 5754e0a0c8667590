"""The edge of REST: who may come in by which name, and which protocol's adapter each path belongs to."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from services.contracts.errors import BadField, InternalError, Malformed, MillraceError
from services.gateway.domain.limits import Quota
from services.gateway.errors import BodyTooLarge, ForeignHost, ForeignOrigin, RateLimitExceeded
from services.gateway.inbound.http.request_reader import ClientGone, discard, read_headers
from services.gateway.inbound.http.responses import quota_headers, used_up
from services.gateway.ports import Limiter
from services.gateway.telemetry import HTTP_REFUSED
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.core.metrics import NO_TENANT
from services.kit.identity.auth import Keyring, Principal
from services.kit.transport.http import Header, Receive, Scope, Send, respond

TIMEOUT_HEADER: Final = b"request-timeout-ms"
"""How long the client waits, in milliseconds; the gateway's own limit holds beside it."""
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.IGNORECASE)
_ORIGIN: Final = re.compile(rf"https?://{_HOST.pattern}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """One HTTP request whose sender is known."""

    scope: Scope
    headers: Mapping[bytes, str]
    principal: Principal
    receive: Receive
    send: Send
    deadline: float
    """A moment of the monotonic clock, by which the client wants its answer."""

    @property
    def verb(self) -> str:
        verb: str = self.scope["method"]
        return verb

    @property
    def path(self) -> str:
        """As it came, but for escapes; `read_path` is the checked one."""
        path: str = self.scope["path"]
        return path


class ProtocolAdapter(Protocol):
    """A family of paths that one kind of client knows, with errors of the shape that it knows."""

    async def serve(self, request: AdmittedRequest) -> None:
        """Answers, or raises a MillraceError before the answer has begun."""
        ...

    def refused(self, error: MillraceError) -> tuple[int, bytes, list[Header]]:
        """Status, body and headers of a refusal."""
        ...


RenderError = Callable[[MillraceError], tuple[int, bytes, list[Header]]]
"""Status, body and headers of an error."""
Health = Callable[[], tuple[int, bytes]]


class RestApp:
    """Raw ASGI. The order: the name it was called by, the key, its limits, the path; so a stranger learns no paths.

    `adapters` go by the first segment of their paths; `native_api` has every other path. `health` has the paths that
    tell of health alone, to anyone: each gives a status and a body.
    """

    def __init__(
        self,
        keyring: Keyring,
        limiter: Limiter,
        hosts: Collection[str],
        native_api: ProtocolAdapter,
        adapters: Mapping[str, ProtocolAdapter],
        health: Mapping[str, Health] = MappingProxyType({}),
        *,
        clock: Clock,
        request_seconds: float,
    ) -> None:
        self._keyring = keyring
        self._limiter = limiter
        self._health = health
        self._hosts = frozenset(host.lower() for host in hosts)
        self._native_api = native_api
        self._adapters = adapters
        self._clock = clock
        self._request_seconds = request_seconds
        self._known_hosts: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, tenant = False, NO_TENANT
        quota: Quota | None = None

        async def sending(message: Any) -> None:
            nonlocal started
            if not started and quota is not None:
                message["headers"] = [*message["headers"], *quota_headers(quota)]
            started = True
            await send(message)

        path: str = scope["path"]
        if path in self._health and scope["method"] in ("GET", "HEAD"):
            await respond(send, *self._health[path]())
            return
        adapter = self._adapters.get(path[1:].partition("/")[0], self._native_api)
        try:
            headers = read_headers(scope)
            self._check_names(headers)
            tenant = (principal := self._keyring.authenticate(headers.get(b"authorization"))).tenant
            permit = await self._limiter.admit(principal)
            try:
                quota = permit.quota
                deadline = self._deadline(headers)
                await adapter.serve(AdmittedRequest(scope, headers, principal, receive, sending, deadline))
            finally:
                permit.release()
        except ClientGone:
            return
        except MillraceError as error:
            HTTP_REFUSED.add(1, tenant=tenant, code=error.code)
            if isinstance(error, BodyTooLarge):
                await discard(scope, receive)
            quota = used_up(error) if isinstance(error, RateLimitExceeded) else quota
            await respond(sending, *adapter.refused(error))
        except Exception:
            logger.exception("a request failed inside")
            if started:
                raise
            await respond(send, *adapter.refused(InternalError()))

    def _deadline(self, headers: Mapping[bytes, str]) -> float:
        """Raises BadField for a time that is none."""
        seconds = self._request_seconds
        timeout = headers.get(TIMEOUT_HEADER)
        if timeout is not None:
            if re.fullmatch(r"[1-9][0-9]{0,8}", timeout) is None:
                name = TIMEOUT_HEADER.decode()
                raise BadField(name=name, problem="it must be a whole number of milliseconds, 1 or more", field=name)
            seconds = min(seconds, int(timeout) / 1000)
        return self._clock.monotonic() + seconds

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
            raise Malformed(problem="a path segment is not a name", field="path")
    try:
        return b"/".join(segments).decode()
    except UnicodeDecodeError as error:
        raise Malformed(problem="the path is not UTF-8", field="path") from error
