"""The REST paths of the protocol, each with the gRPC method that says the same."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

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
