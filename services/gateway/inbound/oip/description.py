"""`/v2` in `openapi.json`."""

from collections.abc import Mapping
from typing import Any, Final

from services import __version__
from services.contracts.errors import BadField, InternalError, MillraceError, TimedOut, Unauthenticated
from services.contracts.names import NAME_PATTERN
from services.gateway.errors import (
    BodyTooLarge,
    DeploymentNotReady,
    NothingToLoad,
    ReplicaFull,
    SlowBody,
    UnknownDeployment,
    UnsupportedMedia,
)
from services.gateway.inbound.oip.asking import words
from services.gateway.inbound.oip.models import BACKEND, EXTENSIONS, PLATFORM, READY, SERVER
from services.gateway.inbound.oip.paths import BASE, ROUTES, Route
from services.kit.identity.auth import RoleTooWeak

TAG: Final = {
    "name": "OpenInference",
    "description": "Version 2 of the protocol that KServe and Triton speak.",
}

_TENSOR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": ["BYTES", "FP32"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "description": "in row-major order; absent where the tensor is binary"},
    },
}
_BODIES: Final[Mapping[str, dict[str, Any]]] = {
    "ModelInfer": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {
                "type": "object",
                "properties": {
                    "sticky_key": {"type": "string"},
                    "timeout": {"type": "integer", "description": "microseconds"},
                    "whole_texts": {"type": "boolean"},
                    "binary_data_output": {"type": "boolean"},
                },
            },
            "inputs": {"type": "array", "items": _TENSOR},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string", "enum": ["label", "score", "labels", "scores", "embedding"]},
                        "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
                    },
                },
            },
        },
    },
    "RepositoryIndex": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    "RepositoryModelLoad": {
        "type": "object",
        "properties": {
            "parameters": {
                "type": "object",
                "properties": {"version": {"type": "string"}, "config": {"type": "string"}},
            }
        },
    },
    "RepositoryModelUnload": {"type": "object", "properties": {"parameters": {"type": "object"}}},
}

_STRING: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"name": "text", "datatype": "BYTES", "shape": [2]}
_TEXTS: Final = ["Return a new path with the suffix changed.", "Sort the rows of a table by one column."]
_DURATION: Final = {"count": 42, "ns": 251_000_000}

_SENT: Final[Mapping[str, dict[str, Any]]] = {
    "ModelInfer": {
        "id": "tour-1",
        "parameters": {"whole_texts": True},
        "inputs": [{**_TEXT, "data": _TEXTS}],
        "outputs": [{"name": "label"}, {"name": "score"}],
    },
    "RepositoryIndex": {"ready": True},
    "RepositoryModelLoad": {"parameters": {"version": "@champion"}},
    "RepositoryModelUnload": {"parameters": {}},
}


def _object(optional: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TOLD: Final[Mapping[str, tuple[dict[str, Any], Any]]] = {
    "ModelInfer": (
        _object(model_name=_STRING, model_version=_STRING, id=_STRING, outputs=_list(_TENSOR)),
        {
            "model_name": "topics",
            "model_version": "3",
            "id": "tour-1",
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["files", "data"]},
                {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.93, 0.88]},
            ],
        },
    ),
    "ServerMetadata": (
        _object(name=_STRING, version=_STRING, extensions=_list(_STRING)),
        {"name": SERVER, "version": __version__, "extensions": [*EXTENSIONS]},
    ),
    "ServerLive": (_object(live={"type": "boolean"}), {"live": True}),
    "ServerReady": (_object(ready={"type": "boolean"}), {"ready": True}),
    "ModelMetadata": (
        _object(name=_STRING, versions=_list(_STRING), platform=_STRING, inputs=_list(_TENSOR), outputs=_list(_TENSOR)),
        {
            "name": "topics",
            "versions": ["2", "3"],
            "platform": PLATFORM,
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
        },
    ),
    "ModelReady": (_object(name=_STRING, ready={"type": "boolean"}), {"name": "topics", "ready": True}),
    "ModelConfig": (
        {"type": "object", "required": ["name", "platform", "backend", "input", "output"]},
        {
            "name": "topics",
            "platform": PLATFORM,
            "backend": BACKEND,
            "max_batch_size": 64,
            "input": [{"name": "text", "data_type": "TYPE_STRING", "dims": []}],
            "output": [{"name": "label", "data_type": "TYPE_STRING", "dims": []}],
        },
    ),
    "ModelStatistics": (
        _object(
            model_stats=_list(
                _object(
                    name=_STRING,
                    version=_STRING,
                    last_inference=_WHOLE,
                    inference_count=_WHOLE,
                    execution_count=_WHOLE,
                    inference_stats={"type": "object", "additionalProperties": _object(count=_WHOLE, ns=_WHOLE)},
                    batch_stats=_list({"type": "object"}),
                )
            )
        ),
        {
            "model_stats": [
                {
                    "name": "topics",
                    "version": "3",
                    "last_inference": 1_793_707_502_250,
                    "inference_count": 84,
                    "execution_count": 42,
                    "inference_stats": {"success": _DURATION, "fail": {"count": 0, "ns": 0}},
                    "batch_stats": [],
                }
            ]
        },
    ),
    "RepositoryIndex": (
        _list(_object(name=_STRING, version=_STRING, state={"enum": ["READY", "UNAVAILABLE"]}, reason=_STRING)),
        [{"name": "topics", "version": "3", "state": READY, "reason": ""}],
    ),
    "RepositoryModelLoad": (_object(), {}),
    "RepositoryModelUnload": (_object(), {}),
}

_SAID: Final[Mapping[int, tuple[str, MillraceError]]] = {
    400: (
        "The request is not valid.",
        BadField(name="inputs[0].shape", problem="it is not [N]", field="shape"),
    ),
    401: ("No key, or one that is not known.", Unauthenticated()),
    403: (
        "The key may not do that.",
        RoleTooWeak(role="viewer", needed="client"),
    ),
    404: ("There is no such model or version.", UnknownDeployment(deployment="news")),
    408: ("The body did not arrive in time.", SlowBody(seconds=10.0, field="body")),
    409: ("The present state does not allow it.", NothingToLoad(model="topics")),
    413: ("The body is too large.", BodyTooLarge(limit=1_048_576, field="body")),
    415: ("The media type is not one of the protocol's.", UnsupportedMedia(header="content-type", value="text/csv")),
    429: ("A bounded queue is full.", ReplicaFull(queued=64, retry_after_seconds=1.0)),
    500: ("An error of ours.", InternalError()),
    503: (
        "A part that is needed is away.",
        DeploymentNotReady(deployment="topics", retry_after_seconds=1.0),
    ),
    504: ("The deadline passed.", TimedOut(seconds=30.0)),
}


def openapi_paths() -> dict[str, dict[str, Any]]:
    """The OpenAPI path items of the protocol's paths; errors are of the protocol's own shape."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.verb.lower()] = _operation(route)
    return paths


def openapi_schemas() -> dict[str, Any]:
    return {"OpenInferenceError": _object(error={"type": "string", "description": "what is wrong, for people"})}


def _statuses(route: Route) -> list[int]:
    found = {401, 403, 500, 503}
    if route.pattern.groupindex:
        found |= {400, 404}
    if route.verb == "POST":
        found |= {400, 408, 413, 415, 504}
    if route.method == "ModelInfer":
        found |= {429}
    if route.method.startswith("RepositoryModel"):
        found |= {409}
    return sorted(found)


def _operation(route: Route) -> dict[str, Any]:
    schema, example = _TOLD[route.method]
    told = {"description": "The answer.", "content": {"application/json": {"schema": schema, "example": example}}}
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "tags": [TAG["name"]],
        "summary": route.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, **_path_parameter(name)} for name in route.pattern.groupindex
        ],
        "responses": {"200": told},
    }
    if route.keyless:
        operation["security"] = []
    else:
        operation["responses"] |= {str(status): _refusal(status) for status in _statuses(route)}
    if route.method in ("ModelReady", "ServerReady"):
        operation["responses"]["400"] = _not_ready(schema, example)
    if route.method in _BODIES:
        content = {"application/json": {"schema": _BODIES[route.method], "example": _SENT[route.method]}}
        operation["requestBody"] = {"required": route.method == "ModelInfer", "content": content}
    return operation


def _refusal(status: int) -> dict[str, Any]:
    description, refusal = _SAID[status]
    media = {
        "schema": {"$ref": "#/components/schemas/OpenInferenceError"},
        "example": {"error": words(refusal)},
    }
    return {"description": description, "content": {"application/json": media}}


def _not_ready(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """The protocol answers a question with a status: 400 is no."""
    refused = {"$ref": "#/components/schemas/OpenInferenceError"}
    media = {
        "schema": {"oneOf": [schema, refused]},
        "examples": {"not ready": {"value": {**example, "ready": False}}, "refused": _refusal_example()},
    }
    return {
        "description": "It cannot answer now, or it was not asked well.",
        "content": {"application/json": media},
    }


def _refusal_example() -> dict[str, Any]:
    return {"value": {"error": words(_SAID[400][1])}}


def _operation_id(route: Route) -> str:
    """The gRPC method's name, told apart where several paths have it."""
    if "{version}" in route.path:
        return f"{route.method}OfVersion"
    return f"{route.method}OfAll" if route.path == f"{BASE}/models/stats" else route.method


def _path_parameter(name: str) -> dict[str, Any]:
    if name == "model":
        return {"schema": {"type": "string", "pattern": NAME_PATTERN}, "example": "topics"}
    return {"schema": {"type": "string", "pattern": "^[1-9][0-9]{0,9}$"}, "example": "3"}
