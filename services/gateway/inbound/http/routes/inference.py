"""The hot paths: what they take and answer. Raw ASGI serves them, before FastAPI is reached."""

from fastapi import APIRouter

from services.gateway.inbound.grpc_services import INFERENCE
from services.gateway.inbound.http.control_route import RawRoute
from services.gateway.inbound.http.models.inference import (
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
)
from services.gateway.inbound.http.parameters import DeploymentName
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=RawRoute)


@router.post("/api/v1/deployments/{deployment}/classify", response_model=ClassifyResponse)
@rpc(INFERENCE, "Classify")
async def classify(deployment: DeploymentName, body: ClassifyRequest) -> None:
    """Classifies 1 to 64 texts."""


@router.post("/api/v1/deployments/{deployment}/embed", response_model=EmbedResponse)
@rpc(INFERENCE, "Embed")
async def embed(deployment: DeploymentName, body: EmbedRequest) -> None:
    """Embeds 1 to 64 texts as unit vectors."""
