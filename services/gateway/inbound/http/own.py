"""Millrace's own REST face: the hot paths, uploads, the control plane, and the document that describes them."""

from services.contracts.errors import MillraceError
from services.gateway.inbound.http.answers import refused
from services.gateway.inbound.http.api import GatewayApi
from services.gateway.inbound.http.door import Request
from services.gateway.inbound.http.inference import InferenceDoor
from services.kit.transport.http import Header


class OwnFace:
    """`/api/v1/...` and `/openapi.json`."""

    def __init__(self, hot: InferenceDoor, api: GatewayApi) -> None:
        self._hot = hot
        self._api = api

    async def serve(self, request: Request) -> None:
        if (hot := self._hot.hot_path(request.verb, request.path)) is not None:
            await self._hot.serve(*hot, request)
        else:
            await self._api.serve(request, self.refused)

    def refused(self, refusal: MillraceError) -> tuple[int, bytes, list[Header]]:
        return refused(refusal)
