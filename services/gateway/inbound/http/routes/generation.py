"""Generation: what its hot path takes and answers. Raw ASGI serves it, before FastAPI is reached."""

from fastapi import APIRouter

from services.gateway.inbound.grpc_services import INFERENCE
from services.gateway.inbound.http.error_responses import ERRORS
from services.gateway.inbound.http.generation_models import GenerateBody, GenerateResult
from services.gateway.inbound.http.parameters import DeploymentName
from services.gateway.inbound.http.rpc_route import RpcRoute, rpc

router = APIRouter(route_class=RpcRoute, tags=["Inference"])


@router.post(
    "/api/v1/deployments/{deployment}/generate",
    operation_id="generate",
    summary="Continues a text, or answers a conversation.",
    response_description="The answer; with `accept: text/event-stream`, `delta` events, then `result`.",
    response_model=GenerateResult,
    responses=ERRORS.references((400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)),
)
@rpc(INFERENCE, "Generate")
async def generate(deployment: DeploymentName, body: GenerateBody) -> None:
    """With `accept: text/event-stream` the answer comes as Server-Sent Events: a `delta` for each part, then `result`;
    an error that comes after the first of them is an `error` event."""
