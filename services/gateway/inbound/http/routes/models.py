"""Models, versions and aliases."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.contracts.rpc import registry_pb2
from services.gateway.inbound.grpc_services import REGISTRY
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.registry import (
    GetLineageQuery,
    Lineage,
    ListModelsQuery,
    ListModelsResponse,
    ListVersionsQuery,
    ListVersionsResponse,
    Model,
    SetAliasRequest,
    Version,
)
from services.gateway.inbound.http.parameters import AliasName, ModelName, VersionReference
from services.gateway.inbound.http.preconditions import EntityResponse
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/models")
@rpc(REGISTRY, "ListModels")
async def list_models(query: Annotated[ListModelsQuery, Query()], call: Call) -> ListModelsResponse:
    """Every model, its versions and aliases."""
    return ListModelsResponse.of(await call.forward(query.to(registry_pb2.ListModelsRequest)))


@router.get("/api/v1/models/{model}", response_class=EntityResponse)
@rpc(REGISTRY, "GetModel")
async def get_model(model: ModelName, call: Call) -> Model:
    """One model."""
    return Model.of(await call.forward(registry_pb2.GetModelRequest(model=model)))


@router.get("/api/v1/models/{model}/versions/{version}", response_class=EntityResponse)
@rpc(REGISTRY, "GetVersion")
async def get_version(model: ModelName, version: VersionReference, call: Call) -> Version:
    """One version, by number or by '@alias'."""
    return Version.of(await call.forward(registry_pb2.GetVersionRequest(model=model, version=version)))


@router.get("/api/v1/models/{model}/versions")
@rpc(REGISTRY, "ListVersions")
async def list_versions(
    model: ModelName, query: Annotated[ListVersionsQuery, Query()], call: Call
) -> ListVersionsResponse:
    """A model's versions, the newest first."""
    return ListVersionsResponse.of(await call.forward(query.to(registry_pb2.ListVersionsRequest, model=model)))


@router.get("/api/v1/models/{model}/versions/{version}/lineage", response_class=EntityResponse)
@rpc(REGISTRY, "GetLineage")
async def get_lineage(
    model: ModelName, version: VersionReference, query: Annotated[GetLineageQuery, Query()], call: Call
) -> Lineage:
    """Where a version comes from and what became of it, as a graph."""
    return Lineage.of(await call.forward(query.to(registry_pb2.GetLineageRequest, model=model, version=version)))


@router.put("/api/v1/models/{model}/aliases/{alias}")
@rpc(REGISTRY, "SetAlias")
async def set_alias(model: ModelName, alias: AliasName, body: SetAliasRequest, call: Call) -> Model:
    """Points an alias at a version."""
    return Model.of(await call.forward(body.to(registry_pb2.SetAliasRequest, model=model, alias=alias)))
