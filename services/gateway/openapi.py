"""OpenAPI 3.1 of the REST door, made from the table of routes and the protobuf descriptors."""

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.contracts.names import NAME_PATTERN
from services.gateway.inbound.http.conditions import has_tag, takes_condition
from services.gateway.inbound.http.routes import ROUTES, Route
from services.gateway.inbound.http.transcode import JSON_TYPES, TIMESTAMP, UINT32_MAX, query_fields

VERSION: Final = "1"

_KEY: Final = (
    "the same key with the same request has its effect once; a repetition is answered without a second one, "
    "for 48 hours. A refused request and a dry run use up no key."
)
_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "stable, for programs"},
                "message": {"type": "string"},
                "field": {"type": ["string", "null"], "description": "the offending field"},
                "hint": {"type": ["string", "null"], "description": "what to do about it"},
                "retry_after_seconds": {"type": ["number", "null"]},
            },
        }
    },
}


def document() -> dict[str, Any]:
    """The whole document, the same for the same table: paths and schemas in a fixed order."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.verb.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Millrace",
            "version": VERSION,
            "description": "Models, deployments, runs and data sets of Millrace, and classification of texts.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}},
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.rpc.name,
        "tags": [route.service.name.removesuffix("Service")],
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
    }
    if route.has_body:
        body = _object_schema(route.request, schemas, without=(*route.parameters, *route.hidden))
        if route.required:
            body["required"] = list(route.required)
        operation["requestBody"] = {
            "required": bool(route.required),
            "content": {"application/json": {"schema": {**body, "additionalProperties": False}}},
        }
    return operation


def _responses(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    refused = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    answered: dict[str, Any] = {"description": "OK", "content": _content(route, schemas)}
    responses: dict[str, Any] = {str(route.status): answered}
    if has_tag(route):
        answered["headers"] = {"etag": {"description": "strong; equal for equal bodies", "schema": {"type": "string"}}}
        responses["304"] = {"description": "Unchanged since the ETag that if-none-match gives; no body."}
    if takes_condition(route.request):
        responses["412"] = {"description": "The deployment has moved on since it was looked at.", **refused}
    responses["default"] = {"description": "Refused.", **refused}
    return responses


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)} for name in route.parameters
    ]
    if not route.has_body:
        parameters.extend(
            {"name": spec.name, "in": "query", "schema": _field_schema(spec, {})} for _, spec in query_fields(route)
        )
    if route.idempotent_by_key:
        parameters.append(_header("idempotency-key", _KEY, {"type": "string", "maxLength": 200}))
    if has_tag(route):
        parameters.append(_header("if-none-match", "the ETag of what is known already: 304 where it still holds"))
    if takes_condition(route.request):
        parameters.append(_header("if-match", "the ETag of the deployment as it was seen: 412 where it has moved on"))
    return parameters


def _header(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema or {"type": "string"}}


def _path_schema(name: str) -> dict[str, Any]:
    if name in ("run", "version", "batch"):
        return {"type": "string"}
    return {"type": "string", "pattern": NAME_PATTERN}


def _content(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    kind = "application/x-ndjson" if route.rpc.server_streaming else "application/json"
    return {kind: {"schema": _reference(route.answer, schemas)}}


def _reference(message: Descriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if message.full_name == TIMESTAMP:
        return {"type": "string", "format": "date-time"}
    if message.name not in schemas:
        schemas[message.name] = {}  # stands for itself while its own fields are drawn
        schemas[message.name] = _object_schema(message, schemas)
    return {"$ref": f"#/components/schemas/{message.name}"}


def _object_schema(message: Descriptor, schemas: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    fields = [spec for spec in message.fields if spec.name not in without]
    return {"type": "object", "properties": {spec.name: _field_schema(spec, schemas) for spec in fields}}


def _field_schema(spec: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    inner = spec.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _field_schema(inner.fields_by_name["value"], schemas)}
    schema = _reference(inner, schemas) if inner is not None else _scalar_schema(spec)
    return {"type": "array", "items": schema} if spec.is_repeated else schema


def _scalar_schema(spec: FieldDescriptor) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": JSON_TYPES[spec.cpp_type]}
    if spec.cpp_type == FieldDescriptor.CPPTYPE_UINT32:
        schema.update(minimum=0, maximum=UINT32_MAX)
    return schema
