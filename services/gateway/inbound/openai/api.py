"""`/v1`: embeddings and completions by raw ASGI, everything else by FastAPI, and errors in OpenAI's shape."""

from functools import partial
from typing import Any, Final

import orjson

from services.contracts.errors import MillraceError
from services.contracts.tasks import EMBEDDING
from services.contracts.tasks.embedding import EmbeddingRequest
from services.gateway.domain.requests import Embedded, Predict
from services.gateway.errors import ModelNotFound, UnknownDeployment, VersionNotServed
from services.gateway.handlers import embed_all
from services.gateway.inbound.http.api import GatewayApi
from services.gateway.inbound.http.request_reader import BodyLimits, read_json
from services.gateway.inbound.http.responses import server_span
from services.gateway.inbound.http.rest_app import AdmittedRequest, read_path
from services.gateway.inbound.openai.embeddings import answer, read_request, seconds_of
from services.gateway.inbound.openai.generation import READERS, Completions
from services.gateway.inbound.openai.request_id import current_request_id, set_request_id
from services.gateway.inbound.openai.responses import refused, status_of
from services.gateway.inbound.sampling import Sampler, traced
from services.gateway.ports import Ports
from services.kit.core import telemetry
from services.kit.identity.auth import check_role
from services.kit.transport.http import JSON, Header, respond

EMBEDDINGS: Final = "/v1/embeddings"
METHOD: Final = "/millrace.v1.InferenceService/Embed"
"""The gRPC method whose role embeddings need."""


class OpenAIApi:
    """What OpenAI's clients know, as far as it is built; every other path is a 404 in their shape.

    A model's id is a deployment's name, or `deployment@version` for one of the versions that it serves.
    """

    def __init__(self, ports: Ports, sampler: Sampler, limits: BodyLimits, api: GatewayApi) -> None:
        self._ports = ports
        self._sampler = sampler
        self._limits = limits
        self._api = api
        self._completions = Completions(ports, sampler, limits)

    async def serve(self, request: AdmittedRequest) -> None:
        set_request_id(self._ports.ids.new("req"))
        path = read_path(request.scope) if request.verb == "POST" else ""
        if path == EMBEDDINGS:
            await self._embed(request)
        elif path in READERS:
            await self._completions.serve(path, request)
        else:
            await self._api.serve(request, self.refused)

    def refused(self, error: MillraceError) -> tuple[int, bytes, list[Header]]:
        status, body, headers = refused(error)
        request_id = current_request_id() or self._ports.ids.new("req")
        return status, body, [*headers, (b"x-request-id", request_id.encode())]

    async def _embed(self, request: AdmittedRequest) -> None:
        check_role(request.principal, METHOD)
        sampling = self._sampler.decide(request.headers.get(b"traceparent"), request.headers.get(b"tracestate"))
        actor, carrier = request.principal.actor, sampling.carrier
        span = partial(server_span, "POST", EMBEDDINGS, EMBEDDINGS, carrier, actor=actor, status_of=status_of)
        with traced(sampling, span) as opened:
            opened.set_attribute("millrace.request", current_request_id())
            traceparent = telemetry.current_traceparent()
            body, embedded = await self._embedded(request)
        headers = [
            JSON,
            (b"x-request-id", current_request_id().encode()),
            (b"traceparent", traceparent.encode()),
            (b"x-millrace-version", str(embedded.version).encode()),
        ]
        await respond(request.send, 200, orjson.dumps(body), headers)

    async def _embedded(self, request: AdmittedRequest) -> tuple[dict[str, Any], Embedded]:
        sent = await read_json(request.receive, request.headers, self._limits)
        embeddings_request = read_request(sent)
        now = self._ports.clock.monotonic()
        command = Predict(
            tenant=request.principal.tenant,
            deployment=embeddings_request.deployment,
            task=EMBEDDING,
            request=EmbeddingRequest(embeddings_request.texts, truncate=False),
            request_id=current_request_id(),
            deadline=now + seconds_of(request.headers, request.deadline - now),
            sticky_key=embeddings_request.user,
            version=embeddings_request.version,
        )
        try:
            embedded = await embed_all(command, self._ports)
        except (UnknownDeployment, VersionNotServed) as unknown:
            raise ModelNotFound(model=sent["model"]) from unknown
        except MillraceError as error:
            if isinstance(sent["input"], str) and error.field == "texts[0]":
                error.field = "input"  # which is one text, and no list of them
            raise
        return answer(embedded, embeddings_request), embedded
