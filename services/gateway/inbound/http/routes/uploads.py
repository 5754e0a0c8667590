"""Contents of data sets: what an upload takes and answers. Raw ASGI reads it, part by part."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from services.gateway.inbound.grpc_services import GATEWAY
from services.gateway.inbound.http.control_route import RawRoute
from services.gateway.inbound.http.models.gateway import UploadedDataset, UploadQuery
from services.gateway.inbound.http.parameters import DatasetName
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=RawRoute)

_CONTENTS: Final[dict[str, Any]] = {
    kind: {"schema": {"type": "string", "contentMediaType": kind}, "example": example}
    for kind, example in (
        ("application/x-ndjson", '{"text": "Return a new path.", "label": "files"}\n'),
        ("text/csv", "text,label\nReturn a new path.,files\n"),
        ("application/octet-stream", '{"text": "Return a new path.", "label": "files"}\n'),
    )
}


@router.post(
    "/api/v1/datasets/{dataset}/content",
    status_code=201,
    response_model=UploadedDataset,
    openapi_extra={"requestBody": {"required": True, "content": _CONTENTS}},
)
@rpc(GATEWAY, "UploadDataset")
async def upload_dataset(dataset: DatasetName, query: Annotated[UploadQuery, Query()]) -> None:
    """Takes a data set's content, to be announced by the address in the answer."""
