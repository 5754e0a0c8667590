"""`/v1`: which path means what, who may ask it, and how it is traced."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import orjson

from services.contracts.errors import MillraceError
from services.contracts.tasks import EMBEDDING
from services.contracts.tasks.embedding import EmbeddingRequest
from services.gateway.domain.requests import Predict
from services.gateway.domain.routing import Served
from services.gateway.errors import (
    MethodNotAllowed,
    ModelNotFound,
    UnknownDeployment,
    UnknownRoute,
    VersionNotServed,
)
from services.gateway.handlers import embed_all, served
from services.gateway.inbound.http.answers import server_span
from services.gateway.inbound.http.body import BodyLimits, read_json
from services.gateway.inbound.http.door import Request, read_path
from services.gateway.inbound.openai.answers import refused, status_of
from services.gateway.inbound.openai.embeddings import answer, read_model, read_request, seconds_of
from services.gateway.inbound.sampling import Sampler, traced
from services.gateway.ports import Ports
from services.kit.core import telemetry
from services.kit.identity.auth import check_role
from services.kit.transport.http import JSON, Header, respond

MODELS: Final = "/v1/models"
MODEL: Final = "/v1/models/{model}"
EMBEDDINGS: Final = "/v1/embeddings"
OWNER: Final = "millrace"
ROUTES: Final[Mapping[str, tuple[str, str]]] = {
    MODELS: ("GET", "/millrace.v1.RegistryService/ListModels"),
    MODEL: ("GET", "/millrace.v1.RegistryService/GetModel"),
    EMBEDDINGS: ("POST", "/millrace.v1.InferenceService/Embed"),
}
"""By path: the HTTP method, and the gRPC method whose role it needs."""

Told: TypeAlias = tuple[dict[str, Any], list[Header]]
"""The answer's object, and headers of its own."""

_request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request under way, so that a refusal tells the id that the log knows it by."""


@dataclass(frozen=True, slots=True)
class _Call:
    request: Request
    id: str
    model: str
    """What the path names, where it names one."""


class OpenAiFace:
    """What OpenAI's clients know, as far as it is built; every other path is a 404 in their shape.

    A model's id is a deployment's name, or `deployment@version` for one of the versions that it serves.
    """

    def __init__(self, ports: Ports, sampler: Sampler, limits: BodyLimits) -> None:
        self._ports = ports
        self._sampler = sampler
        self._limits = limits
        self._asks: Mapping[str, Callable[[_Call], Awaitable[Told]]] = {
            MODELS: self._list_models,
            MODEL: self._get_model,
            EMBEDDINGS: self._embed,
        }

    async def serve(self, request: Request) -> None:
        request_id = self._ports.ids.new("req")
        _request_id.set(request_id)
        path = read_path(request.scope)
        route, model = (MODEL, path.removeprefix(f"{MODELS}/")) if path.startswith(f"{MODELS}/") else (path, "")
        if route not in ROUTES or (route == MODEL and (not model or "/" in model)):
            raise UnknownRoute(hint="GET /openapi.json lists every path")
        verb, method = ROUTES[route]
        if request.verb != verb:
            raise MethodNotAllowed(method=request.verb[:20], allowed=verb)
        check_role(request.principal, method)
        with self._traced(request, verb, route, path) as traceparent:
            told, headers = await self._asks[route](_Call(request, request_id, model))
        more = [JSON, (b"x-request-id", request_id.encode()), (b"traceparent", traceparent.encode()), *headers]
        await respond(request.send, 200, orjson.dumps(told), more)

    def refused(self, refusal: MillraceError) -> tuple[int, bytes, list[Header]]:
        status, body, headers = refused(refusal)
        request_id = _request_id.get() or self._ports.ids.new("req")
        return status, body, [*headers, (b"x-request-id", request_id.encode())]

    @contextmanager
    def _traced(self, request: Request, verb: str, route: str, path: str) -> Iterator[str]:
        """The trace context of the request: with a span of its own for as many as the hot path has."""
        sampling = self._sampler.decide(request.headers.get(b"traceparent"), request.headers.get(b"tracestate"))
        actor, carrier = request.principal.actor, sampling.carrier
        span = partial(server_span, verb, route, path, carrier, actor=actor, status_of=status_of)
        with traced(sampling, span) as opened:
            opened.set_attribute("millrace.request", _request_id.get())
            yield telemetry.current_traceparent()

    async def _list_models(self, call: _Call) -> Told:
        found = served(call.request.principal.tenant, self._ports)
        return {"object": "list", "data": [model for part in found for model in _models(part)]}, []

    async def _get_model(self, call: _Call) -> Told:
        read_model(call.model)
        for part in served(call.request.principal.tenant, self._ports):
            for model in _models(part):
                if model["id"] == call.model:
                    return model, []
        raise ModelNotFound(model=call.model)

    async def _embed(self, call: _Call) -> Told:
        request = call.request
        sent = await read_json(request.receive, request.headers, self._limits)
        wanted = read_request(sent)
        now = self._ports.clock.monotonic()
        command = Predict(
            tenant=request.principal.tenant,
            deployment=wanted.deployment,
            task=EMBEDDING,
            request=EmbeddingRequest(wanted.texts, truncate=False),
            request_id=call.id,
            deadline=now + seconds_of(request.headers, request.deadline - now),
            sticky_key=wanted.user,
            version=wanted.version,
        )
        try:
            embedded = await embed_all(command, self._ports)
        except (UnknownDeployment, VersionNotServed) as unknown:
            raise ModelNotFound(model=sent["model"]) from unknown
        except MillraceError as refusal:
            if isinstance(sent["input"], str) and refusal.field == "texts[0]":
                refusal.field = "input"  # which is one text, and no list of them
            raise
        return answer(embedded, wanted), [(b"x-millrace-version", str(embedded.version).encode())]


def _models(part: Served) -> list[dict[str, Any]]:
    """The deployment as a model, and each of its versions as one to hold on to."""
    created = round(part.changed_at.timestamp())
    names = [part.deployment, *(f"{part.deployment}@{version}" for version in part.versions)]
    return [{"id": name, "object": "model", "created": created, "owned_by": OWNER} for name in names]
