"""Data sets."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.contracts.rpc import gateway_pb2, trainer_pb2
from services.gateway import handlers
from services.gateway.inbound import converters
from services.gateway.inbound.grpc_services import GATEWAY, TRAINER
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.gateway import Accepted, AnnounceDatasetRequest
from services.gateway.inbound.http.models.trainer import (
    Dataset,
    DatasetVersion,
    ListDatasetsQuery,
    ListDatasetsResponse,
    ListDatasetVersionsQuery,
    ListDatasetVersionsResponse,
)
from services.gateway.inbound.http.parameters import ContentHash, DatasetName
from services.gateway.inbound.http.preconditions import EntityResponse
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/datasets")
@rpc(TRAINER, "ListDatasets")
async def list_datasets(query: Annotated[ListDatasetsQuery, Query()], call: Call) -> ListDatasetsResponse:
    """The data sets that were announced."""
    return ListDatasetsResponse.of(await call.forward(query.to(trainer_pb2.ListDatasetsRequest)))


@router.post("/api/v1/datasets", status_code=202)
@rpc(GATEWAY, "AnnounceDataset")
async def announce_dataset(body: AnnounceDatasetRequest, call: Call) -> Accepted:
    """Announces a data set: it will be trained on."""
    event = converters.dataset_ready(body.to(gateway_pb2.AnnounceDatasetRequest))
    return Accepted.of(converters.accepted(await handlers.announce_dataset(event, call.caller, call.ports)))


@router.get("/api/v1/datasets/{dataset}", response_class=EntityResponse)
@rpc(TRAINER, "GetDataset")
async def get_dataset(dataset: DatasetName, call: Call) -> Dataset:
    """One data set."""
    return Dataset.of(await call.forward(trainer_pb2.GetDatasetRequest(dataset=dataset)))


@router.get("/api/v1/datasets/{dataset}/versions")
@rpc(TRAINER, "ListDatasetVersions")
async def list_dataset_versions(
    dataset: DatasetName, query: Annotated[ListDatasetVersionsQuery, Query()], call: Call
) -> ListDatasetVersionsResponse:
    """The contents it has had, newest first."""
    return ListDatasetVersionsResponse.of(
        await call.forward(query.to(trainer_pb2.ListDatasetVersionsRequest, dataset=dataset))
    )


@router.get("/api/v1/datasets/{dataset}/versions/{content_hash}", response_class=EntityResponse)
@rpc(TRAINER, "GetDatasetVersion")
async def get_dataset_version(dataset: DatasetName, content_hash: ContentHash, call: Call) -> DatasetVersion:
    """One content, by its SHA-256 or at least the first 8 digits of it."""
    return DatasetVersion.of(
        await call.forward(trainer_pb2.GetDatasetVersionRequest(dataset=dataset, content_hash=content_hash))
    )
