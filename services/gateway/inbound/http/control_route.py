"""What every route of the control API has in common: body, query, conditions, and how it is described."""

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any, get_args

from fastapi import Request

from services.contracts.errors import BadField, Malformed
from services.gateway.errors import UnknownRoute
from services.gateway.handlers import check_deadline
from services.gateway.inbound.http.calls import Control
from services.gateway.inbound.http.description import describe
from services.gateway.inbound.http.preconditions import EXPECTED, expected_generation
from services.gateway.inbound.http.query import check_names, read_pairs
from services.gateway.inbound.http.request_reader import read_json
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.gateway.inbound.http.rpc_route import ReadRequest, RpcRoute, method_of
from services.gateway.inbound.http.wire_model import PagedQueryModel, QueryModel
from services.kit.transport.http import Receive, Scope, Send


class ControlRoute(RpcRoute):
    """A body is the parameter `body`, a query the parameter `query`; both are models that are generated from proto/."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        parameters = signature(endpoint).parameters
        self.body_model = parameters["body"].annotation if "body" in parameters else None
        query = parameters.get("query")
        self.query_model: type[QueryModel] | None = get_args(query.annotation)[0] if query is not None else None
        self.paged = self.query_model is not None and issubclass(self.query_model, PagedQueryModel)
        described = describe(path, endpoint, method_of(endpoint), self.body_model, options)
        super().__init__(path, endpoint, **options | described)

    async def read(self, request: Request, admitted: AdmittedRequest) -> Request:
        """Raises Malformed, BadField, DeadlinePassed and what reading a body raises."""
        control: Control = request.app.state.control
        pairs = read_pairs(request.scope)
        if self.body_model is None:
            check_names(pairs, self.query_model)
        elif pairs:
            raise Malformed(problem="this path takes no query parameters", field=pairs[0][0][:100])
        else:
            body = await read_json(admitted.receive, admitted.headers, control.limits)
            request = ReadRequest(request, self._checked(body, request, admitted))
        check_deadline(admitted.deadline, control.ports)
        return request

    def _checked(self, body: dict[str, Any], request: Request, admitted: AdmittedRequest) -> dict[str, Any]:
        """With the generation of `If-Match` where there is a field for it, and without what the path says too."""
        takes_condition = self.body_model is not None and EXPECTED in self.body_model.model_fields
        expected = expected_generation(admitted.headers, takes_condition=takes_condition)
        if expected is not None and body.setdefault(EXPECTED, expected) != expected:
            raise Malformed(problem=f"it says another generation than {EXPECTED}", field="if-match")
        for name, value in request.path_params.items():
            if body.pop(name, value) != value:
                raise BadField(name=name, problem="it cannot be sent on this path", field=name)
        return body


class RawRoute(ControlRoute):
    """A path that raw ASGI serves: the signature of its endpoint is for the document alone."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises UnknownRoute where nothing serves it."""
        serve = scope["app"].state.raw.get(self.method.name)
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
        elif serve is None:
            raise UnknownRoute
        else:
            await serve(replace(scope["admitted"], scope=scope, receive=receive, send=send))
