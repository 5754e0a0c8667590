"""Deployments and their rollouts."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.contracts.rpc import registry_pb2
from services.gateway.inbound.grpc_services import REGISTRY
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.registry import (
    CreateDeploymentRequest,
    Deployment,
    ListDeploymentsQuery,
    ListDeploymentsResponse,
    MoveRolloutRequest,
    StartRolloutRequest,
    UpdateDeploymentRequest,
)
from services.gateway.inbound.http.parameters import DeploymentName
from services.gateway.inbound.http.preconditions import EntityResponse
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/deployments")
@rpc(REGISTRY, "ListDeployments")
async def list_deployments(query: Annotated[ListDeploymentsQuery, Query()], call: Call) -> ListDeploymentsResponse:
    """Every deployment."""
    return ListDeploymentsResponse.of(await call.forward(query.to(registry_pb2.ListDeploymentsRequest)))


@router.get("/api/v1/deployments/{deployment}", response_class=EntityResponse)
@rpc(REGISTRY, "GetDeployment")
async def get_deployment(deployment: DeploymentName, call: Call) -> Deployment:
    """One deployment, what it serves and its latest rollout."""
    return Deployment.of(await call.forward(registry_pb2.GetDeploymentRequest(deployment=deployment)))


@router.post("/api/v1/deployments", status_code=201)
@rpc(REGISTRY, "CreateDeployment")
async def create_deployment(body: CreateDeploymentRequest, call: Call) -> Deployment:
    """Makes a deployment, which serves nothing until a rollout is started."""
    return Deployment.of(await call.forward(body.to(registry_pb2.CreateDeploymentRequest)))


@router.patch("/api/v1/deployments/{deployment}")
@rpc(REGISTRY, "UpdateDeployment")
async def update_deployment(deployment: DeploymentName, body: UpdateDeploymentRequest, call: Call) -> Deployment:
    """Changes what is given of a deployment."""
    return Deployment.of(await call.forward(body.to(registry_pb2.UpdateDeploymentRequest, deployment=deployment)))


@router.delete("/api/v1/deployments/{deployment}")
@rpc(REGISTRY, "DeleteDeployment")
async def delete_deployment(deployment: DeploymentName, body: MoveRolloutRequest, call: Call) -> Deployment:
    """Takes a stopped deployment away."""
    return Deployment.of(await call.forward(body.to(registry_pb2.MoveRolloutRequest, deployment=deployment)))


@router.post("/api/v1/deployments/{deployment}/rollouts")
@rpc(REGISTRY, "StartRollout")
async def start_rollout(deployment: DeploymentName, body: StartRolloutRequest, call: Call) -> Deployment:
    """Starts to roll a version out."""
    return Deployment.of(await call.forward(body.to(registry_pb2.StartRolloutRequest, deployment=deployment)))


@router.post("/api/v1/deployments/{deployment}/rollouts:approve")
@rpc(REGISTRY, "ApproveRollout")
async def approve_rollout(deployment: DeploymentName, body: MoveRolloutRequest, call: Call) -> Deployment:
    """Lets a rollout begin that waits for a person."""
    return Deployment.of(await call.forward(body.to(registry_pb2.MoveRolloutRequest, deployment=deployment)))


@router.post("/api/v1/deployments/{deployment}/rollouts:pause")
@rpc(REGISTRY, "PauseRollout")
async def pause_rollout(deployment: DeploymentName, body: MoveRolloutRequest, call: Call) -> Deployment:
    """Holds the rollout at its present step."""
    return Deployment.of(await call.forward(body.to(registry_pb2.MoveRolloutRequest, deployment=deployment)))


@router.post("/api/v1/deployments/{deployment}/rollouts:resume")
@rpc(REGISTRY, "ResumeRollout")
async def resume_rollout(deployment: DeploymentName, body: MoveRolloutRequest, call: Call) -> Deployment:
    """Goes on with a paused rollout."""
    return Deployment.of(await call.forward(body.to(registry_pb2.MoveRolloutRequest, deployment=deployment)))


@router.post("/api/v1/deployments/{deployment}/rollouts:promote")
@rpc(REGISTRY, "PromoteRollout")
async def promote_rollout(deployment: DeploymentName, body: MoveRolloutRequest, call: Call) -> Deployment:
    """Ends the canary: all traffic moves."""
    return Deployment.of(await call.forward(body.to(registry_pb2.MoveRolloutRequest, deployment=deployment)))


@router.post("/api/v1/deployments/{deployment}:rollback")
@rpc(REGISTRY, "RollBack")
async def roll_back(deployment: DeploymentName, body: MoveRolloutRequest, call: Call) -> Deployment:
    """Ends the rollout, or returns to the version before."""
    return Deployment.of(await call.forward(body.to(registry_pb2.MoveRolloutRequest, deployment=deployment)))


@router.post("/api/v1/deployments/{deployment}:stop")
@rpc(REGISTRY, "StopDeployment")
async def stop_deployment(deployment: DeploymentName, body: MoveRolloutRequest, call: Call) -> Deployment:
    """Stops serving until a rollout is started."""
    return Deployment.of(await call.forward(body.to(registry_pb2.MoveRolloutRequest, deployment=deployment)))
