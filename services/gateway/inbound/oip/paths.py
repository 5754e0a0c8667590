"""The REST paths of the protocol, each with the gRPC method that says the same, and their part of openapi.json."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.contracts.names import NAME_PATTERN
from services.gateway.errors import ExtensionNotOffered, MethodNotAllowed, UnknownRoute

BASE: Final = "/v2"
LIVE: Final = "/v2/health/live"
READY: Final = "/v2/health/ready"
UNOFFERED: Final = re.compile(r"/v2/(?:models/[^/]+/)?(systemsharedmemory|cudasharedmemory|trace|logging)(?:/.*)?")
"""Paths of the protocol's extensions that are not offered."""
EXTENSIONS: Final = {
    "systemsharedmemory": "shared memory",
    "cudasharedmemory": "shared memory",
    "trace": "trace settings",
    "logging": "log settings",
}


@dataclass(frozen=True)
class Route:
    """One method of one path. `keyless` ones tell of health alone."""

    verb: str
    path: str
    method: str
    summary: str
    keyless: bool = False
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        expression = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        object.__setattr__(self, "pattern", re.compile(expression))

    @property
    def rpc(self) -> str:
        """The gRPC method's path, which also says the role that is needed."""
        return f"/inference.GRPCInferenceService/{self.method}"


_MODEL: Final = f"{BASE}/models/{{model}}"
_VERSION: Final = f"{_MODEL}/versions/{{version}}"

ROUTES: Final = (
    Route("POST", f"{_MODEL}/infer", "ModelInfer", "Classifies 1 to 64 texts."),
    Route("POST", f"{_VERSION}/infer", "ModelInfer", "The same by one of the served versions."),
    Route("GET", BASE, "ServerMetadata", "The server's name, version and extensions."),
    Route("GET", LIVE, "ServerLive", "Whether the process answers at all.", keyless=True),
    Route("GET", READY, "ServerReady", "Whether requests can be taken.", keyless=True),
    Route("GET", f"{BASE}/models/stats", "ModelStatistics", "What was counted of every model."),
    Route("GET", _MODEL, "ModelMetadata", "The model's versions and tensors."),
    Route("GET", _VERSION, "ModelMetadata", "The same of one version."),
    Route("GET", f"{_MODEL}/ready", "ModelReady", "Whether the model can answer: 200, or 400 where it cannot."),
    Route("GET", f"{_VERSION}/ready", "ModelReady", "Whether the version can answer."),
    Route("GET", f"{_MODEL}/config", "ModelConfig", "The model's configuration."),
    Route("GET", f"{_VERSION}/config", "ModelConfig", "The same of one version."),
    Route("GET", f"{_MODEL}/stats", "ModelStatistics", "What was counted of the model since the gateway started."),
    Route("GET", f"{_VERSION}/stats", "ModelStatistics", "The same of one version."),
    Route("POST", f"{BASE}/repository/index", "RepositoryIndex", "Every model, version by version."),
    Route(
        "POST",
        f"{BASE}/repository/models/{{model}}/load",
        "RepositoryModelLoad",
        "Rolls a version out where none is served, and waits until it can answer.",
    ),
    Route(
        "POST",
        f"{BASE}/repository/models/{{model}}/unload",
        "RepositoryModelUnload",
        "Stops the deployment, and waits until it answers no more.",
    ),
)


def match(verb: str, path: str) -> tuple[Route, Mapping[str, str]]:
    """The route and its path parameters. Raises UnknownRoute, MethodNotAllowed or ExtensionNotOffered."""
    found: list[Route] = []
    for route in ROUTES:
        hit = route.pattern.fullmatch(path)
        if hit is None:
            continue
        if route.verb == verb and not route.keyless:
            return route, hit.groupdict()
        found.append(route)
    if found:
        raise MethodNotAllowed(method=verb[:20], allowed=", ".join(sorted({route.verb for route in found})))
    if unoffered := UNOFFERED.fullmatch(path):
        raise ExtensionNotOffered(name=EXTENSIONS[unoffered[1]])
    raise UnknownRoute


_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
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


def openapi_paths() -> dict[str, dict[str, Any]]:
    """The OpenAPI path items of the protocol's paths; errors are of the protocol's own shape."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.verb.lower()] = _operation(route)
    return paths


def _operation(route: Route) -> dict[str, Any]:
    answer: dict[str, Any] = {"type": "object"}
    if route.method == "ModelInfer":
        answer = {"type": "object", "properties": {"outputs": {"type": "array", "items": _TENSOR}}}
    elif route.method == "RepositoryIndex":
        answer = {"type": "array", "items": {"type": "object"}}
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "tags": ["OpenInference"],
        "summary": route.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
            for name in route.pattern.groupindex
        ],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": answer}}},
            "default": {"description": "Refused.", "content": {"application/json": {"schema": _ERROR}}},
        },
    }
    if route.keyless:
        operation["security"] = []
    if route.method in _BODIES:
        content = {"application/json": {"schema": _BODIES[route.method]}}
        operation["requestBody"] = {"required": route.method == "ModelInfer", "content": content}
    return operation


def _operation_id(route: Route) -> str:
    """The gRPC method's name, told apart where several paths have it."""
    if "{version}" in route.path:
        return f"{route.method}OfVersion"
    return f"{route.method}OfAll" if route.path == f"{BASE}/models/stats" else route.method


def _path_schema(name: str) -> dict[str, Any]:
    return {"type": "string", "pattern": NAME_PATTERN if name == "model" else "^[1-9][0-9]{0,9}$"}
