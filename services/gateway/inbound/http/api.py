"""The FastAPI application of the gateway: its routers, its errors, and the document that is made of them."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.routing import iter_route_contexts
from fastapi.telemetry import TelemetryConfig
from pydantic.json_schema import models_json_schema

from services.contracts.errors import MillraceError
from services.gateway.errors import BodyTooLarge, MethodNotAllowed, UnknownRoute
from services.gateway.inbound.http import error_responses
from services.gateway.inbound.http.calls import Control
from services.gateway.inbound.http.request_reader import ClientGone, discard
from services.gateway.inbound.http.responses import record_error
from services.gateway.inbound.http.rest_app import AdmittedRequest, RenderError, read_path
from services.gateway.inbound.http.routes import ROUTERS
from services.gateway.inbound.oip import error_responses as open_inference_errors
from services.gateway.inbound.oip import routes as open_inference
from services.gateway.inbound.oip.paths import unoffered
from services.gateway.inbound.openai import error_responses as openai_errors
from services.gateway.inbound.openai import routes as openai
from services.gateway.inbound.sampling import Sampler
from services.gateway.telemetry import HTTP_REFUSED

RawApp = Callable[[AdmittedRequest], Awaitable[None]]
VERSION: Final = "1"
FASTAPI_ERROR: Final = "HTTPValidationError"
CLIENT_CLOSED_REQUEST: Final = 499
"""nginx's number for a request whose client left: nobody reads it, and logs know it."""
DESCRIPTION: Final = """\
Every path asks for an API key, health aside: `Authorization: Bearer KEY`; `millrace status` shows the file that holds
the first one. An error is `{"error": {"code", "message", "field", "hint"}}`: `code` is stable, for programs. Paths
under `/v1` are those of OpenAI's API, and their errors have its shape. A request may carry a W3C `traceparent`; the
response has its own.
"""
TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
"""FastAPI's own: the spans and the metrics of the gateway say whose request it was, on every path alike."""
TAGS: Final = {
    "Inference": "Asking a deployment.",
    "Gateway": "What becomes an event: data sets and feedback.",
    "Batch": "Files that are classified row by row while nobody waits.",
    "DeadLetter": "Events that services gave up, and their redelivery.",
    "Key": "Who may come in, as what, and how much.",
    "Registry": "Models, versions, aliases, deployments, rollouts and the history of them all.",
    "Trainer": "Data sets and runs.",
    "Monitor": "What the traffic of a deployment looks like.",
    "Operations": "For those who run it.",
    "OpenAI": "The API that OpenAI's clients know: base URL `/v1`, the same key.",
    "OpenInference": "Version 2 of the protocol that KServe and Triton speak.",
}
ERRORS: Final = (error_responses.ERRORS, openai_errors.ERRORS, open_inference_errors.ERRORS)


@dataclass(frozen=True)
class Parts:
    """What the routes stand on. `raw` has what serves a RawRoute, by the name of its gRPC method."""

    control: Control
    sampler: Sampler
    open_inference: open_inference.OpenInference
    raw: Mapping[str, RawApp]


class GatewayApi(FastAPI):
    """Behind the edge, which has admitted whoever comes here: `scope["admitted"]` is the request with its caller."""

    def __init__(self, parts: Parts | None = None) -> None:
        """Without `parts` it can be described alone."""
        tags = [{"name": name, "description": description} for name, description in TAGS.items()]
        super().__init__(
            title="Millrace",
            version=VERSION,
            summary="Train, judge, roll out, serve and watch language models.",
            description=DESCRIPTION,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            servers=[{"url": "/", "description": "the gateway that this document came from"}],
            openapi_tags=tags,
            openapi_url=None,
            redirect_slashes=False,
            telemetry=TELEMETRY,
            exception_handlers={
                MillraceError: _on_error,
                404: _on_unknown_route,
                405: _on_unknown_route,
                ClientGone: _on_client_gone,
            },
        )
        self._describing = Lock()
        self._document: dict[str, Any] | None = None
        if parts is not None:
            self.state.control = parts.control
            self.state.raw = parts.raw
            self.state.sampler = parts.sampler
            self.state.open_inference = parts.open_inference
        for router in (*ROUTERS, openai.router, open_inference.router):
            self.include_router(router)
        self._patterns = [
            (re.compile(re.sub(r"{\w+}", "[^/]+", route.path_format)), route.methods or set())
            for route in iter_route_contexts(self.routes)
            if route.path_format is not None
        ]

    async def serve(self, request: AdmittedRequest, refused: RenderError) -> None:
        """`refused` gives an error the shape that the clients of these paths know. Raises Malformed."""
        scope = {**request.scope, "path": read_path(request.scope), "admitted": request, "refused": refused}
        await self(scope, request.receive, request.send)

    def methods_of(self, path: str) -> list[str]:
        """What the path can be called with; nothing where there is no such path."""
        return sorted({method for pattern, methods in self._patterns if pattern.fullmatch(path) for method in methods})

    def openapi(self) -> dict[str, Any]:
        """FastAPI's document, with the errors that its routes refer to and the security that the edge sees to.

        It is made once, which takes a quarter of a second: call it in a thread.
        """
        with self._describing:
            if self._document is None:
                self._document = _completed(super().openapi())
            return self._document


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    _drop_default_422(document)
    _, defined = models_json_schema(
        [(table.model, "serialization") for table in ERRORS], ref_template="#/components/schemas/{model}"
    )
    components = document["components"]
    components["responses"] = {name: one for table in ERRORS for name, one in table.components().items()}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}}
    components["schemas"] = dict(sorted((components["schemas"] | defined["$defs"]).items()))
    document["security"] = [{"key": []}]
    return document


def _drop_default_422(document: dict[str, Any]) -> None:
    """FastAPI's own answer to what is not valid, where a route lists none: here that is one of our errors."""
    for item in document["paths"].values():
        for operation in item.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if FASTAPI_ERROR in str(content):
                del operation["responses"]["422"]
    for name in (FASTAPI_ERROR, "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def document() -> dict[str, Any]:
    """The whole document, the same for the same routes and models."""
    return GatewayApi().openapi()


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, MillraceError):
        raise error
    admitted: AdmittedRequest = request.scope["admitted"]
    HTTP_REFUSED.add(1, tenant=admitted.principal.tenant, code=error.code)
    record_error(error)
    if isinstance(error, BodyTooLarge):
        await discard(request.scope, request.receive)
    status, body, headers = request.scope["refused"](error)
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})


async def _on_unknown_route(request: Request, error: Exception) -> Response:
    path = request.scope["path"]
    if methods := request.app.methods_of(path):
        return await _on_error(request, MethodNotAllowed(method=request.method[:20], allowed=", ".join(methods)))
    return await _on_error(request, unoffered(path) or UnknownRoute())


async def _on_client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
