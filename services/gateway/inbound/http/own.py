"""Millrace's own REST face: the hot paths, uploads, the control plane, and the document that describes them."""

from collections.abc import Callable
from typing import Any, Final

import orjson

from services.contracts.errors import MillraceError
from services.gateway.errors import MethodNotAllowed
from services.gateway.inbound.http.answers import refused
from services.gateway.inbound.http.control import ControlDoor
from services.gateway.inbound.http.door import Request
from services.gateway.inbound.http.inference import InferenceDoor
from services.gateway.inbound.http.uploads import UploadDoor, is_upload
from services.kit.transport.http import Header, respond

OPENAPI_PATH: Final = "/openapi.json"
OPERATIONS: Final = {OPENAPI_PATH: "GET", "/healthz": "GET, HEAD", "/readyz": "GET, HEAD", "/metrics": "GET"}
"""Paths of operation and their methods; all but the first are answered before a request comes here."""


class OwnFace:
    """`/api/v1/...` and `/openapi.json`."""

    def __init__(
        self, hot: InferenceDoor, uploads: UploadDoor, control: ControlDoor, document: Callable[[], dict[str, Any]]
    ) -> None:
        self._hot = hot
        self._uploads = uploads
        self._control = control
        self._document = document

    async def serve(self, request: Request) -> None:
        if (hot := self._hot.hot_path(request.verb, request.path)) is not None:
            await self._hot.serve(*hot, request)
        elif is_upload(request.verb, request.path):
            await self._uploads.serve(request)
        elif request.path == OPENAPI_PATH and request.verb == "GET":
            await respond(request.send, 200, orjson.dumps(self._document()))
        elif request.path in OPERATIONS:
            raise MethodNotAllowed(method=request.verb[:20], allowed=OPERATIONS[request.path])
        else:
            await self._control.serve(request)

    def refused(self, refusal: MillraceError) -> tuple[int, bytes, list[Header]]:
        return refused(refusal)
