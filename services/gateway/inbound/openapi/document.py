"""OpenAPI 3.1 of the REST door, made from the table of routes and the protobuf descriptors."""

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.contracts.names import NAME_PATTERN
from services.gateway.inbound.http.conditions import has_tag, takes_condition
from services.gateway.inbound.http.routes import ROUTES, Route
from services.gateway.inbound.http.transcode import JSON_TYPES, TIMESTAMP, UINT32_MAX, query_fields
from services.gateway.inbound.oip import description as open_inference
from services.gateway.inbound.openai import description as openai
from services.gateway.inbound.openapi.operations import operations_paths
from services.gateway.inbound.openapi.refusals import ERROR, components, references, statuses
from services.gateway.inbound.openapi.samples import BODIES, field_sample, sample

VERSION: Final = "1"
_KEY: Final = (
    "the same key with the same request has its effect once; a repetition is answered without a second one, "
    "for 48 hours. A refused request and a dry run use up no key."
)
DESCRIPTION: Final = """\
Every path asks for an API key, health aside: `Authorization: Bearer KEY`; `millrace status` shows the file that holds
the first one. A refusal is `{"error": {"code", "message", "field", "hint"}}`: `code` is stable, for programs. Paths
under `/v1` are those of OpenAI's API, and refuse in its shape. A request may carry a W3C `traceparent`; the answer
tells its own.
"""

TAG_SAMPLE: Final = '"g7-9f86d081884c7d659a2feaa0c55ad015"'

FACES: Final = (openai, open_inference)
"""Families of paths beside our own; each has `TAG`, `openapi_paths()` and `openapi_schemas()`."""

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
}


def document() -> dict[str, Any]:
    """The whole document, the same for the same table: paths and schemas in a fixed order."""
    schemas: dict[str, Any] = {"Error": ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.verb.lower()] = _operation(route, schemas)
    tags = [{"name": name, "description": told} for name, told in TAGS.items()]
    for face in FACES:
        paths |= face.openapi_paths()
        schemas |= face.openapi_schemas()
        tags.append(face.TAG)
    paths |= operations_paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Millrace",
            "version": VERSION,
            "summary": "Train, judge, roll out, serve and watch language models.",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "the gateway that this document came from"}],
        "security": [{"key": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}},
            "responses": components(),
            "schemas": dict(sorted(schemas.items())),
        },
    }


CONTENTS: Final = {
    kind: {"schema": {"type": "string", "contentMediaType": kind}, "example": example}
    for kind, example in (
        ("application/x-ndjson", '{"text": "Return a new path.", "label": "files"}\n'),
        ("text/csv", "text,label\nReturn a new path.,files\n"),
        ("application/octet-stream", '{"text": "Return a new path.", "label": "files"}\n'),
    )
}
"""What an upload's body may be."""


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.rpc.name,
        "tags": [route.service.name.removesuffix("Service")],
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
    }
    if route.uploads:
        operation["requestBody"] = {"required": True, "content": CONTENTS}
    elif route.has_body:
        body = _object_schema(route.request, schemas, without=(*route.parameters, *route.hidden))
        if route.required:
            body["required"] = list(route.required)
        media = {"schema": {**body, "additionalProperties": False}, "example": BODIES.get(route.rpc.name, {})}
        operation["requestBody"] = {"required": bool(route.required), "content": {"application/json": media}}
    return operation


def _responses(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    answered: dict[str, Any] = {"description": _success(route), "content": _content(route, schemas)}
    responses: dict[str, Any] = {str(route.status): answered}
    if has_tag(route):
        tag = {"description": "strong; equal for equal bodies", "schema": {"type": "string"}, "example": TAG_SAMPLE}
        answered["headers"] = {"etag": tag}
        responses["304"] = {"description": "Unchanged since the ETag that if-none-match gives; no body."}
    return responses | references(statuses(route))


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, **_path_parameter(route, name)} for name in route.parameters
    ]
    if route.uploads or not route.has_body:
        parameters.extend(
            {"name": spec.name, "in": "query", "schema": _field_schema(spec, {}), "example": field_sample(spec)}
            for _, spec in query_fields(route)
        )
    if route.idempotent_by_key:
        schema = {"type": "string", "maxLength": 200}
        parameters.append(_header("idempotency-key", _KEY, "docstrings-2026-11/1", schema))
    if has_tag(route):
        told = "the ETag of what is known already: 304 where it still holds"
        parameters.append(_header("if-none-match", told, TAG_SAMPLE))
    if takes_condition(route.request):
        told = "the ETag of the deployment as it was seen: 412 where it has moved on"
        parameters.append(_header("if-match", told, TAG_SAMPLE))
    return parameters


def _header(name: str, description: str, example: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    told = {"name": name, "in": "header", "description": description}
    return {**told, "schema": schema or {"type": "string"}, "example": example}


def _path_parameter(route: Route, name: str) -> dict[str, Any]:
    """A path is text: a version by its number stands there as by its alias."""
    shapes = {"run": None, "version": None, "batch": None, "content_hash": "^[0-9a-f]{8,64}$"}
    shape = shapes.get(name, NAME_PATTERN)
    schema = {"type": "string"} if shape is None else {"type": "string", "pattern": shape}
    return {"schema": schema, "example": str(field_sample(route.request.fields_by_name[name]))}


def _success(route: Route) -> str:
    if route.rpc.server_streaming and not route.uploads:
        return "One JSON object a line; a last line with an `error` says that it broke off."
    return "It is on disk, and will have its effect once." if route.status == 202 else "The answer."


def _content(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    lines = route.rpc.server_streaming and not route.uploads
    kind = "application/x-ndjson" if lines else "application/json"
    return {kind: {"schema": _reference(route.answer, schemas), "example": sample(route.answer)}}


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
