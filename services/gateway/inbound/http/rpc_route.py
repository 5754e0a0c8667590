"""A route that stands for a gRPC method: its role, and the span around it."""

from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from opentelemetry.trace import Span

from services.contracts.errors import InternalError
from services.gateway.inbound.http.calls import method_path
from services.gateway.inbound.http.problems import first_problem
from services.gateway.inbound.http.responses import http_span, trace_parent
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.identity.auth import check_role
from services.kit.transport.http import STATUS, Header, Receive, Scope, Send

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
JSON_TYPE: Final = (b"content-type", b"application/json")
_methods: Final[dict[Callable[..., Any], MethodDescriptor]] = {}


def rpc(service: ServiceDescriptor, name: str) -> Callable[[Endpoint], Endpoint]:
    """The gRPC method that says the same as a route, whose role is the route's."""

    def register(endpoint: Endpoint) -> Endpoint:
        _methods[endpoint] = service.methods_by_name[name]
        return endpoint

    return register


def method_of(endpoint: Callable[..., Any]) -> MethodDescriptor:
    return _methods[endpoint]


class RpcRoute(APIRoute):
    """Its endpoint is marked with `rpc`."""

    paged = False
    """Whether its query has the page of a listing."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.method = method_of(endpoint)
        super().__init__(path, endpoint, **options | {"response_model_exclude_none": True})

    async def read(self, request: Request, admitted: AdmittedRequest) -> Request:
        """The request with its body read within limits, where it has one. Raises what is wrong with it."""
        return request

    @contextmanager
    def span(self, scope: Scope, admitted: AdmittedRequest) -> Iterator[Span]:
        parent, actor = trace_parent(admitted.headers), admitted.principal.actor
        with http_span(scope["method"], self.path_format, scope["path"], parent, actor=actor) as span:
            yield span

    def headers(self) -> list[Header]:
        """Of every response that is no error."""
        return [(b"traceparent", telemetry.current_traceparent().encode())]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RoleTooWeak before anything of the request is read, and InternalError for what nobody foresaw."""
        admitted: AdmittedRequest = scope["admitted"]
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        check_role(admitted.principal, method_path(self.method))
        started = False
        with self.span(scope, admitted) as span:

            async def sending(message: MutableMapping[str, Any]) -> None:
                nonlocal started
                if message["type"] == "http.response.start":
                    started = True
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] < 400:
                        message["headers"] = [*message["headers"], *self.headers()]
                await send(message)

            try:
                await super().handle(scope, receive, sending)
            except Exception as error:
                if started:
                    raise
                logger.exception("a request failed inside")
                span.set_attribute("http.response.status_code", STATUS[InternalError.kind])
                raise InternalError from error

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            read = await self.read(request, request.scope["admitted"])
            try:
                return await handle(read)
            except RequestValidationError as error:
                raise first_problem(error.errors(), paged=self.paged) from error

        return read_and_handle


class ReadRequest(Request):
    """A request whose body was read within its limits, by the rules of one place for all of the gateway."""

    def __init__(self, request: Request, body: dict[str, Any]) -> None:
        headers = [header for header in request.scope["headers"] if header[0] != b"content-type"]
        super().__init__({**request.scope, "headers": [*headers, JSON_TYPE]}, request.receive)
        self._object = body

    async def body(self) -> bytes:
        """Not empty, so that FastAPI goes on to `json`."""
        return b"{}"

    async def json(self) -> dict[str, Any]:
        return self._object
