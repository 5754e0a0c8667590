"""The REST face of the protocol, under `/v2`. Its errors are `{"error": "words"}`, as its clients want them."""

import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson

from services.contracts.errors import BadField, Kind, MillraceError
from services.gateway.domain.requests import Answer
from services.gateway.errors import ExtensionNotOffered, UnsupportedMedia
from services.gateway.handlers import answer
from services.gateway.inbound.http import answers
from services.gateway.inbound.http.answers import server_span
from services.gateway.inbound.http.body import WINDOW_BITS, BodyLimits, read_bytes
from services.gateway.inbound.http.door import Health, Request, read_path
from services.gateway.inbound.oip.asking import Asked, predict_command, words
from services.gateway.inbound.oip.models import Models
from services.gateway.inbound.oip.paths import LIVE, READY, Route, match
from services.gateway.inbound.oip.repository import Order, Repository
from services.gateway.inbound.oip.wire import HEAD_LENGTH, read_object, read_request, write_answer
from services.gateway.inbound.sampling import Sampler, traced
from services.gateway.ports import Ports
from services.kit.core import telemetry
from services.kit.identity.auth import check_role
from services.kit.transport.http import JSON, Header, respond

OCTETS: Final[Header] = (b"content-type", b"application/octet-stream")
MEDIA: Final = frozenset(
    {"", "application/json", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded"}
)
"""What clients call JSON, and JSON with tensors behind it: aiohttp says text, and curl says a form of anything."""
COMPRESSED_FROM_BYTES: Final = 1_024


@dataclass(frozen=True)
class Call:
    """One request but an inference, on its way."""

    request: Request
    model: str
    version: str
    sent: Mapping[str, Any]

    @property
    def tenant(self) -> str:
        return self.request.principal.tenant


class Face:
    """`/v2/...`; health aside, which the door itself has open."""

    def __init__(
        self,
        ports: Ports,
        models: Models,
        repository: Repository,
        sampler: Sampler,
        limits: BodyLimits,
    ) -> None:
        self._ports = ports
        self._models = models
        self._repository = repository
        self._sampler = sampler
        self._limits = limits
        self._told: Mapping[str, Callable[[Call], Awaitable[tuple[int, Any]]]] = {
            "ServerMetadata": self._server,
            "ModelMetadata": self._metadata,
            "ModelReady": self._ready,
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    async def serve(self, request: Request) -> None:
        path = read_path(request.scope)
        route, parameters = match(request.verb, path)
        check_role(request.principal, route.rpc)
        model, version = parameters.get("model", ""), parameters.get("version", "")
        if route.method == "ModelInfer":
            await self._infer(model, version, route, request)
            return
        with server_span(route.verb, route.path, path, _parent(request), actor=request.principal.actor):
            sent = read_object(await self._body(request)) if route.verb == "POST" else {}
            status, told = await self._told[route.method](Call(request, model, version, sent))
            trace = (b"traceparent", telemetry.current_carrier().get("traceparent", "").encode())
        await respond(request.send, status, orjson.dumps(told), [JSON, trace])

    def refused(self, refusal: MillraceError) -> tuple[int, bytes, list[Header]]:
        status, _, headers = answers.refused(refusal)
        if refusal.kind is Kind.INVALID:
            status = 400
        elif isinstance(refusal, ExtensionNotOffered):
            status = 501
        return status, orjson.dumps({"error": words(refusal)}), headers

    # --- inference

    async def _infer(self, model: str, version: str, route: Route, request: Request) -> None:
        body = await self._body(request)
        asked = read_request(body, request.headers.get(HEAD_LENGTH), model=model, version=version)
        sampling = self._sampler.decide(request.headers.get(b"traceparent"), request.headers.get(b"tracestate"))
        actor, carrier = request.principal.actor, sampling.carrier
        with traced(sampling, partial(server_span, route.verb, route.path, request.path, carrier, actor=actor)) as span:
            traceparent, now = telemetry.current_traceparent(), self._ports.clock.monotonic()
            command = predict_command(
                asked,
                tenant=request.principal.tenant,
                ids=self._ports.ids,
                now=now,
                seconds=request.deadline - now,
            )
            answered = await answer(command, self._ports)
            facts = {"millrace.request": answered.request_id, "millrace.deployment": model}
            span.set_attributes({**facts, "millrace.version": answered.version})
        await _respond(request, asked, answered, traceparent)

    async def _body(self, request: Request) -> bytes:
        media = request.headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if media not in MEDIA:
            hint = "send application/json, or application/octet-stream where tensors follow the JSON"
            raise UnsupportedMedia(header="content-type", value=media[:100], field="content-type", hint=hint)
        return await read_bytes(request.receive, request.headers, self._limits)

    # --- everything else

    async def _server(self, call: Call) -> tuple[int, Any]:
        return 200, self._models.server()

    async def _metadata(self, call: Call) -> tuple[int, Any]:
        return 200, self._models.metadata(call.tenant, call.model, call.version)

    async def _ready(self, call: Call) -> tuple[int, Any]:
        ready = self._models.is_ready(call.tenant, call.model, call.version)
        return _yes_or_no(ready), {"name": call.model, "ready": ready}

    async def _config(self, call: Call) -> tuple[int, Any]:
        return 200, self._models.config(call.tenant, call.model, call.version)

    async def _statistics(self, call: Call) -> tuple[int, Any]:
        return 200, self._models.statistics(call.tenant, call.model, call.version)

    async def _index(self, call: Call) -> tuple[int, Any]:
        ready = call.sent.get("ready", False)
        if not isinstance(ready, bool) or call.sent.keys() - {"ready"}:
            at = "ready" if not isinstance(ready, bool) else min(call.sent.keys() - {"ready"})[:100]
            raise BadField(name=at, problem="only 'ready' can be sent, as true or false", field=at)
        return 200, self._models.index(call.tenant, only_ready=ready)

    async def _load(self, call: Call) -> tuple[int, Any]:
        await self._repository.load(self._order(call))
        return 200, {}

    async def _unload(self, call: Call) -> tuple[int, Any]:
        await self._repository.unload(self._order(call))
        return 200, {}

    def _order(self, call: Call) -> Order:
        parameters = call.sent.get("parameters", {})
        for name in call.sent.keys() - {"parameters"}:
            raise BadField(name=name[:100], problem="there is no such field", field=name[:100])
        if not isinstance(parameters, dict):
            raise BadField(name="parameters", problem="it must be a JSON object", field="parameters")
        return Order(
            tenant=call.tenant,
            model=call.model,
            parameters=parameters,
            authorization=call.request.headers.get(b"authorization", ""),
            deadline=call.request.deadline,
        )


def health(is_ready: Callable[[], bool]) -> Mapping[str, Health]:
    """What the door answers to anyone."""

    def ready() -> tuple[int, bytes]:
        told = is_ready()
        return _yes_or_no(told), orjson.dumps({"ready": told})

    return {LIVE: lambda: (200, b'{"live":true}'), READY: ready}


def _yes_or_no(told: bool) -> int:
    """The protocol's statuses of a question."""
    return 200 if told else 400


def _parent(request: Request) -> dict[str, str]:
    headers = request.headers
    return {name: headers[name.encode()] for name in ("traceparent", "tracestate") if name.encode() in headers}


async def _respond(request: Request, asked: Asked, answer: Answer, traceparent: str) -> None:
    body, head_length = write_answer(answer, asked)
    headers = [
        (b"x-millrace-version", str(answer.version).encode()),
        (b"traceparent", traceparent.encode()),
        JSON if head_length is None else OCTETS,
    ]
    if head_length is not None:
        headers.append((HEAD_LENGTH, str(head_length).encode()))
    encoding = chosen_encoding(request.headers.get(b"accept-encoding", ""))
    if encoding and len(body) >= COMPRESSED_FROM_BYTES:
        deflater = zlib.compressobj(1, zlib.DEFLATED, WINDOW_BITS[encoding])
        body = deflater.compress(body) + deflater.flush()
        headers += [(b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
    await respond(request.send, 200, body, headers)


def chosen_encoding(accepted: str) -> str:
    """Of an Accept-Encoding header: the encoding of ours that it likes best, or nothing."""
    best, best_weight = "", 0.0
    for part in accepted.split(","):
        name, _, quality = part.strip().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
        except ValueError:
            continue
        if name.strip().lower() in WINDOW_BITS and weight > best_weight:
            best, best_weight = name.strip().lower(), weight
    return best
