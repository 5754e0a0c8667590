"""The control plane: each REST route becomes its gRPC method, here or at the service that owns it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from google.protobuf.message import Message

from services.contracts.errors import Malformed, MillraceError
from services.gateway.domain.requests import Caller
from services.gateway.errors import MethodNotAllowed, UnknownRoute
from services.gateway.handlers import announce_dataset, check_deadline, send_feedback
from services.gateway.handlers.batches import read_output
from services.gateway.inbound import batches, dead_letters, translate
from services.gateway.inbound.http.answers import refused, server_span
from services.gateway.inbound.http.body import BodyLimits, read_json
from services.gateway.inbound.http.conditions import EXPECTED, entity_tag, expected_generation, has_tag, is_unchanged
from services.gateway.inbound.http.door import Request, read_path
from services.gateway.inbound.http.routes import BATCHES, ROUTES, Route, check_parameter
from services.gateway.inbound.http.transcode import build_request, new_message, read_query, render
from services.gateway.inbound.keys import answer_create, answer_list, answer_revoke
from services.gateway.inbound.passing import passed_on
from services.gateway.ports import Ports, Upstreams
from services.kit.core import telemetry
from services.kit.core.idempotency import FIELD
from services.kit.identity.auth import Principal, check_role
from services.kit.transport.http import JSON, Header, Receive, Scope, Send, respond

NDJSON: Final = (b"content-type", b"application/x-ndjson")
MAX_QUERY_FIELDS: Final = 20

Local = Callable[[Any, Caller, Ports], Awaitable[Message]]


async def _announce(request: Any, caller: Caller, ports: Ports) -> Message:
    return translate.accepted(await announce_dataset(translate.dataset_ready(request), caller, ports))


async def _feedback(request: Any, caller: Caller, ports: Ports) -> Message:
    return translate.accepted(await send_feedback(translate.feedback_received(request), caller, ports))


LOCAL: Final[Mapping[str, Local]] = {
    "/millrace.v1.GatewayService/AnnounceDataset": _announce,
    "/millrace.v1.GatewayService/SendFeedback": _feedback,
    "/millrace.v1.KeyService/CreateKey": answer_create,
    "/millrace.v1.KeyService/ListKeys": answer_list,
    "/millrace.v1.KeyService/RevokeKey": answer_revoke,
    "/millrace.v1.DeadLetterService/ListDeadLetters": dead_letters.list_all,
    "/millrace.v1.DeadLetterService/GetDeadLetter": dead_letters.get,
    "/millrace.v1.DeadLetterService/RedeliverDeadLetters": dead_letters.redeliver,
    "/millrace.v1.BatchService/CreateBatch": batches.create,
    "/millrace.v1.BatchService/GetBatch": batches.get,
    "/millrace.v1.BatchService/ListBatches": batches.list_all,
    "/millrace.v1.BatchService/CancelBatch": batches.cancel,
}
"""What the gateway answers itself; the rest is passed on to its owner."""


@dataclass(frozen=True)
class _Call:
    """One REST request on its way."""

    route: Route
    headers: Mapping[bytes, str]
    principal: Principal
    request: Message
    deadline: float

    def metadata(self) -> list[tuple[str, str]]:
        """The caller's own keys go on, so that the owner of the method knows who asks, and whether again."""
        key = passed_on(self.headers.get(FIELD.encode(), ""))
        authorization = ("authorization", self.headers.get(b"authorization", ""))
        return [authorization, *key, *telemetry.current_carrier().items()]


class ControlDoor:
    """Every route of the table but the hot one."""

    def __init__(self, ports: Ports, upstreams: Upstreams, limits: BodyLimits, *, follow_seconds: float) -> None:
        self._ports = ports
        self._upstreams = upstreams
        self._limits = limits
        self._follow_seconds = follow_seconds

    async def serve(self, request: Request) -> None:
        path, headers = read_path(request.scope), request.headers
        route, parameters = match(request.verb, path)
        check_role(request.principal, route.method)
        for name, value in parameters.items():
            check_parameter(name, value)
        parent = {name: headers[name.encode()] for name in ("traceparent", "tracestate") if name.encode() in headers}
        with server_span(route.verb, route.path, path, parent, actor=request.principal.actor, status=route.status):
            sent = await self._sent(route, request.scope, headers, request.receive)
            expected = expected_generation(route, headers)
            if expected is not None and sent.setdefault(EXPECTED, expected) != expected:
                raise Malformed(problem=f"it says another generation than {EXPECTED}", field="if-match")
            message = build_request(route, parameters, sent)
            check_deadline(request.deadline, self._ports)
            call = _Call(route, headers, request.principal, message, request.deadline)
            await self._answer(call, request.receive, request.send)

    async def _sent(self, route: Route, scope: Scope, headers: Mapping[bytes, str], receive: Receive) -> dict[str, Any]:
        query = read_query_string(scope)
        if not route.has_body:
            return read_query(route, query)
        if query:
            raise Malformed(problem="this path takes no query parameters", field=query[0][0][:100])
        return await read_json(receive, headers, self._limits)

    async def _answer(self, call: _Call, receive: Receive, send: Send) -> None:
        trace = [(b"traceparent", telemetry.current_carrier().get("traceparent", "").encode())]
        if call.route.service is BATCHES and call.route.rpc.server_streaming:
            await self._output(call, receive, send, trace)
            return
        if call.route.rpc.server_streaming:
            await _stream(self._lines(call), receive, send, trace)
            return
        if (local := LOCAL.get(call.route.method)) is not None:
            key = call.headers.get(FIELD.encode(), "")
            caller = Caller(tenant=call.principal.tenant, idempotency_key=key, actor=call.principal.actor)
            answer = await local(call.request, caller, self._ports)
        else:
            sent = call.request.SerializeToString()
            left = call.deadline - self._ports.clock.monotonic()
            told = await self._upstreams.call(
                call.route.method, sent, call.metadata(), tenant=call.principal.tenant, seconds=left
            )
            answer = new_message(call.route.answer)
            answer.ParseFromString(told)
        await _respond(call, answer, send, trace)

    async def _output(self, call: _Call, receive: Receive, send: Send, headers: list[Header]) -> None:
        """A batch's output as it lies in the store. Its hash is its ETag: whoever has it already is told so."""
        request: Any = call.request
        outcome, chunks = await read_output(call.principal.tenant, request.batch, self._ports)
        etag = f'"{outcome.sha256}"'
        headers = [*headers, (b"etag", etag.encode())]
        if etag in call.headers.get(b"if-none-match", ""):
            await respond(send, 304, b"", headers)
            return
        await _stream(chunks, receive, send, [*headers, (b"content-length", str(outcome.size_bytes).encode())])

    async def _lines(self, call: _Call) -> AsyncIterator[bytes]:
        sent = call.request.SerializeToString()
        left = call.deadline - self._ports.clock.monotonic()
        seconds = self._follow_seconds if getattr(call.request, "follow", False) else left
        lines = self._upstreams.stream(
            call.route.method, sent, call.metadata(), tenant=call.principal.tenant, seconds=seconds
        )
        async for told in lines:
            answer = new_message(call.route.answer)
            answer.ParseFromString(told)
            yield render(answer) + b"\n"


async def _respond(call: _Call, answer: Message, send: Send, headers: list[Header]) -> None:
    body = render(answer)
    if not has_tag(call.route):
        await respond(send, call.route.status, body, [JSON, *headers])
        return
    tag = entity_tag(answer, body)
    kept = [(b"etag", tag.encode()), (b"cache-control", b"private, no-cache"), *headers]
    if is_unchanged(call.headers, tag):
        await send({"type": "http.response.start", "status": 304, "headers": kept})
        await send({"type": "http.response.body", "body": b""})
    else:
        await respond(send, call.route.status, body, [JSON, *kept])


def match(verb: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route and its path parameters. Raises UnknownRoute or MethodNotAllowed."""
    found = [(route, hit) for route in ROUTES if (hit := route.pattern.fullmatch(path))]
    for route, hit in found:
        if route.verb == verb:
            return route, hit.groupdict()
    if not found:
        raise UnknownRoute
    raise MethodNotAllowed(method=verb[:20], allowed=", ".join(sorted({route.verb for route, _ in found})))


def read_query_string(scope: Scope) -> list[tuple[str, str]]:
    """Raises Malformed."""
    try:
        text = scope.get("query_string", b"").decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError as error:
        raise Malformed(problem="the query cannot be parsed", field="query") from error
    return pairs


async def _stream(lines: AsyncIterator[bytes], receive: Receive, send: Send, headers: list[Header]) -> None:
    """Sends lines until they end or the client is gone. Raises what refused the first line."""
    sending = asyncio.create_task(_send_lines(lines, send, headers))
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        for task in (sending, gone):
            task.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)


async def _send_lines(lines: AsyncIterator[bytes], send: Send, headers: list[Header]) -> None:
    """Before the first line an error is a status; after it the last line says it: never a silent end."""
    first = await anext(lines, b"")
    await send({"type": "http.response.start", "status": 200, "headers": [NDJSON, *headers]})
    await send({"type": "http.response.body", "body": first, "more_body": True})
    try:
        async for line in lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
    except MillraceError as refusal:
        _, body, _ = refused(refusal)
        await send({"type": "http.response.body", "body": body + b"\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
