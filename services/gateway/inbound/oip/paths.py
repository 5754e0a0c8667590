"""The REST paths of the protocol that FastAPI does not serve."""

import re
from typing import Final

from services.gateway.errors import ExtensionNotOffered

LIVE: Final = "/v2/health/live"
READY: Final = "/v2/health/ready"
INFER: Final = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
UNOFFERED: Final = re.compile(r"/v2/(?:models/[^/]+/)?(systemsharedmemory|cudasharedmemory|trace|logging)(?:/.*)?")
"""Paths of the protocol's extensions that are not offered."""
EXTENSIONS: Final = {
    "systemsharedmemory": "shared memory",
    "cudasharedmemory": "shared memory",
    "trace": "trace settings",
    "logging": "log settings",
}


def unoffered(path: str) -> ExtensionNotOffered | None:
    """What to say of a path that is none, where it belongs to an extension of the protocol."""
    hit = UNOFFERED.fullmatch(path)
    return ExtensionNotOffered(name=EXTENSIONS[hit[1]]) if hit is not None else None
