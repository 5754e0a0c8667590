"""Millrace's own REST API: predictions by raw ASGI, everything else by FastAPI."""

from services.contracts.errors import MillraceError
from services.gateway.inbound.http.api import GatewayApi
from services.gateway.inbound.http.inference import InferenceApp
from services.gateway.inbound.http.responses import refused
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.kit.transport.http import Header


class NativeApi:
    """`/api/v1/...` and `/openapi.json`."""

    def __init__(self, hot: InferenceApp, api: GatewayApi) -> None:
        self._hot = hot
        self._api = api

    async def serve(self, request: AdmittedRequest) -> None:
        if (hot := self._hot.hot_path(request.verb, request.path)) is not None:
            await self._hot.serve(*hot, request)
        else:
            await self._api.serve(request, self.refused)

    def refused(self, error: MillraceError) -> tuple[int, bytes, list[Header]]:
        return refused(error)
