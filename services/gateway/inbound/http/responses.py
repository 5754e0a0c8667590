"""How an error leaves by REST, and the one server span of a request that is traced."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from services.contracts.errors import Malformed, MillraceError
from services.gateway.domain.limits import Quota
from services.gateway.errors import BodyTooLarge, MethodNotAllowed, RateLimitExceeded, SlowBody, StalledUpload
from services.kit.core import telemetry
from services.kit.storage.uploads import StoreFull
from services.kit.transport.http import STATUS, Header, problem

ONLY_HTTP: Final[Mapping[type[MillraceError], int]] = {
    Malformed: 400,
    MethodNotAllowed: 405,
    SlowBody: 408,
    StalledUpload: 408,
    StoreFull: 507,
}
"""Statuses that no other transport tells apart."""

CLOSING: Final = (BodyTooLarge, SlowBody)
"""The rest of the body is not read, so the connection cannot be used again."""


def status_of(error: MillraceError) -> int:
    return ONLY_HTTP.get(type(error), STATUS[error.kind])


def refused(error: MillraceError) -> tuple[int, bytes, list[Header]]:
    """Status, body and headers: the kit's shape, with what only HTTP knows."""
    _, body, headers = problem(error)
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", str(error.details["allowed"]).encode()))
    if isinstance(error, CLOSING):
        headers.append((b"connection", b"close"))
    return status_of(error), body, headers


def quota_headers(quota: Quota) -> list[Header]:
    """What is left of a key's requests, as draft-ietf-httpapi-ratelimit-headers names it (revision 10)."""
    return [
        (b"ratelimit-policy", b'"requests";q=%d;w=%d' % (quota.burst, math.ceil(quota.window_seconds))),
        (b"ratelimit", b'"requests";r=%d;t=%d' % (quota.left, math.ceil(quota.reset_seconds))),
    ]


def used_up(error: RateLimitExceeded) -> Quota:
    """The quota of a key that was refused: nothing is left until it may try again."""
    facts: Any = error.details
    return Quota(facts["burst"], facts["window_seconds"], 0, facts["retry_after_seconds"])


@contextmanager
def server_span(
    verb: str,
    route: str,
    path: str,
    parent: Mapping[str, str],
    *,
    actor: str,
    status: int = 200,
    status_of: Callable[[MillraceError], int] = status_of,
) -> Iterator[Span]:
    """The span of one request whose outcome is known when the block ends; `status` is the one of success."""
    with http_span(verb, route, path, parent, actor=actor) as opened:
        try:
            yield opened
        except MillraceError as error:
            opened.set_attribute("http.response.status_code", status_of(error))
            raise
        opened.set_attribute("http.response.status_code", status)


def http_span(
    verb: str, route: str, path: str, parent: Mapping[str, str], *, actor: str
) -> AbstractContextManager[Span]:
    """The span of one request, by OpenTelemetry's HTTP conventions 1.41, without its status."""
    attributes = {
        "millrace.actor": actor,
        "http.request.method": verb,
        "http.route": route,
        "url.path": path,
        "url.scheme": "http",
        "network.protocol.name": "http",
    }
    return telemetry.span(f"{verb} {route}", kind=SpanKind.SERVER, parent=parent, attributes=attributes)


def record_error(error: MillraceError) -> None:
    """Marks the span under way with an error that was turned into a response inside it."""
    span = trace.get_current_span()
    span.set_attribute("error.type", error.code)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def trace_parent(headers: Mapping[bytes, str]) -> dict[str, str]:
    """The caller's trace context, as a carrier."""
    return {name: headers[name.encode()] for name in ("traceparent", "tracestate") if name.encode() in headers}
