"""The paths for those who run the gateway. All but the document are served by the kit, before the gateway's own."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict

from services.gateway.inbound.http.error_responses import ERRORS

router = APIRouter(tags=["Operations"])
KEYLESS: Final[dict[str, Any]] = {"security": []}
_KEYED: Final = ERRORS.references((401, 403))
_READY: Final[dict[str, Any]] = {"status": "ready", "checks": {"routes": True, "broker": True}}
_NOT_READY: Final[dict[str, Any]] = {"status": "not ready", "checks": {"routes": False, "broker": True}}


class Liveness(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})
    status: str


class Readiness(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_READY, _NOT_READY]})
    status: str
    checks: dict[str, bool]


@router.get(
    "/healthz",
    operation_id="getLiveness",
    summary="Whether the process lives.",
    response_model=Liveness,
    openapi_extra=KEYLESS,
)
async def get_liveness() -> None:
    """Whether the process lives."""


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Whether it takes requests, check by check.",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "It is not ready."}},
    openapi_extra=KEYLESS,
)
async def get_readiness() -> None:
    """Whether it takes requests, check by check."""


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Prometheus metrics.",
    response_class=PlainTextResponse,
    responses={
        200: {"content": {"text/plain": {"example": "millrace_outbox_depth 0.0"}}},
        **_KEYED,
    },
)
async def get_metrics() -> None:
    """Prometheus metrics."""


@router.get(
    "/openapi.json",
    operation_id="getDocument",
    response_model=dict[str, Any],
    summary="This document.",
    responses={
        200: {"content": {"application/json": {"example": {"openapi": "3.1.0"}}}},
        **_KEYED,
    },
)
async def get_document(request: Request) -> JSONResponse:
    """This document."""
    return JSONResponse(await asyncio.to_thread(request.app.openapi))
