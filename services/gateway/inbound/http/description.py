"""What the document says of every route of the control API beside its models: errors, headers, operation."""

import re
from collections.abc import Callable, Mapping
from inspect import cleandoc
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor
from pydantic import BaseModel

from services.gateway.inbound.grpc_services import GATEWAY, INFERENCE
from services.gateway.inbound.http.error_responses import ERRORS
from services.gateway.inbound.http.ndjson import NdjsonResponse
from services.gateway.inbound.http.preconditions import EXPECTED, EntityResponse

TAG_EXAMPLE: Final = '"g7-9f86d081884c7d659a2feaa0c55ad015"'
_KEY: Final = (
    "the same key with the same request has its effect once; a repetition is answered without a second one, "
    "for 48 hours. A refused request and a dry run use up no key."
)
_ETAG: Final = {
    "etag": {"description": "strong; equal for equal bodies", "schema": {"type": "string"}, "example": TAG_EXAMPLE}
}
_UNCHANGED: Final = {"description": "Unchanged since the ETag that if-none-match gives; no body."}


def describe(
    path: str,
    endpoint: Callable[..., Any],
    method: MethodDescriptor,
    body: type[BaseModel] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The options of a route that follow from its gRPC method and its models."""
    reads, takes_condition = set(options["methods"]) == {"GET"}, body is not None and EXPECTED in body.model_fields
    tagged = options["response_class"] is EntityResponse
    statuses = _statuses(path, method, body)
    responses: dict[int | str, dict[str, Any]] = ERRORS.references(statuses | {412} if takes_condition else statuses)
    headers = []
    if not reads and method.containing_service is not INFERENCE:
        schema = {"type": "string", "maxLength": 200, "examples": ["docstrings-2026-11/1"]}
        headers.append(_header("idempotency-key", _KEY, schema))
    if tagged:
        responses |= {200: {"headers": _ETAG}, 304: dict(_UNCHANGED)}
        headers.append(_header("if-none-match", "the ETag of what is known already: 304 where it still holds"))
    if takes_condition:
        headers.append(_header("if-match", "the ETag of the deployment as it was seen: 412 where it has moved on"))
    return {
        "status_code": options["status_code"] or 200,
        "operation_id": method.name,
        "tags": [method.containing_service.name.removesuffix("Service")],
        "summary": cleandoc(endpoint.__doc__ or "").partition("\n")[0],
        "responses": responses | (options["responses"] or {}),
        "response_description": _success(options),
        "openapi_extra": {"parameters": headers} | _optional_body(body) | (options["openapi_extra"] or {}),
    }


def _header(name: str, description: str, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    fallback = {"type": "string", "examples": [TAG_EXAMPLE]}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema or fallback}


def _success(options: Mapping[str, Any]) -> str:
    if options["response_class"] is NdjsonResponse:
        return "One JSON object a line; a last line with an `error` says that it broke off."
    return "It is on disk, and will have its effect once." if options["status_code"] == 202 else "The answer."


def _optional_body(body: type[BaseModel] | None) -> dict[str, Any]:
    """A body without required fields need not be sent."""
    if body is None or any(field.is_required() for field in body.model_fields.values()):
        return {}
    return {"requestBody": {"required": False}}


def _statuses(path: str, method: MethodDescriptor, body: type[BaseModel] | None) -> set[int]:
    """The errors that a route can give."""
    statuses = {401, 403, 422, 500, 503} | ({400} if body is None else {400, 408, 413, 415})
    names = {*re.findall(r"{(\w+)}", path), *(body.model_fields if body is not None else ())}
    if "{" in path or names & {"deployment", "addresses"}:
        statuses |= {404}
    if method.client_streaming:
        statuses |= {408, 413, 415, 429, 507}
    service = method.containing_service
    if service is INFERENCE:
        statuses |= {429, 504}
    elif service is not GATEWAY:
        statuses |= {504} if body is None else {409, 504}
    return statuses
