"""Feedback on what was answered."""

from fastapi import APIRouter

from services.contracts.rpc import gateway_pb2
from services.gateway import handlers
from services.gateway.inbound import converters
from services.gateway.inbound.grpc_services import GATEWAY
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.gateway import Accepted, SendFeedbackRequest
from services.gateway.inbound.http.parameters import DeploymentName
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.post("/api/v1/deployments/{deployment}/feedback", status_code=202)
@rpc(GATEWAY, "SendFeedback")
async def send_feedback(deployment: DeploymentName, body: SendFeedbackRequest, call: Call) -> Accepted:
    """Says what the right label of an answered request was."""
    event = converters.feedback_received(body.to(gateway_pb2.SendFeedbackRequest, deployment=deployment))
    return Accepted.of(converters.accepted(await handlers.send_feedback(event, call.caller, call.ports)))
