"""The routes of `/v2`: what the Open Inference Protocol asks but for inference, which raw ASGI serves."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse

from services.contracts.names import NAME_PATTERN
from services.contracts.rpc import open_inference_pb2
from services.gateway.inbound.http.request_reader import BodyLimits
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.gateway.inbound.http.rpc_route import ReadRequest, RpcRoute, rpc
from services.gateway.inbound.oip.error_responses import ERRORS
from services.gateway.inbound.oip.models import Models
from services.gateway.inbound.oip.repository import Order, Repository
from services.gateway.inbound.oip.rest_converters import read_body, read_object
from services.gateway.inbound.oip.wire_models import (
    Done,
    ModelConfig,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadata,
    ModelReady,
    OpenInferenceError,
    RepositoryIndexEntry,
    RepositoryIndexRequest,
    RepositoryRequest,
    ServerLive,
    ServerMetadata,
    ServerReady,
    Statistics,
)

SERVICE: Final = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
KEYLESS: Final[dict[str, Any]] = {"security": []}
_COMMON: Final = (401, 403, 500, 503)
_MODEL: Final = (*_COMMON, 400, 404)
_BODY: Final = (*_COMMON, 400, 408, 413, 415, 504)
_INFER: Final = (*_BODY, 404, 429)
_REPOSITORY: Final = (*_BODY, 404, 409)
_NOT_READY: Final = "It cannot answer now, or it was not asked well: the protocol answers a question with a status."

ModelName = Annotated[str, Path(examples=["topics"], json_schema_extra={"pattern": NAME_PATTERN})]
Version = Annotated[str, Path(examples=["3"], json_schema_extra={"pattern": "^[1-9][0-9]{0,9}$"})]


@dataclass(frozen=True)
class OpenInference:
    """What the routes stand on."""

    models: Models
    repository: Repository
    limits: BodyLimits


class OpenInferenceRoute(RpcRoute):
    """Its clients call JSON by many names of media types."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        summary = (endpoint.__doc__ or "").partition("\n")[0]
        options |= {"status_code": 200, "summary": summary, "response_description": "The answer."}
        super().__init__(path, endpoint, **options)

    async def read(self, request: Request, admitted: AdmittedRequest) -> Request:
        """Raises UnsupportedMedia, Malformed and what reading a body raises."""
        if self.body_field is None:
            return request
        parts: OpenInference = request.app.state.open_inference
        return ReadRequest(request, read_object(await read_body(admitted, parts.limits)))


router = APIRouter(route_class=OpenInferenceRoute, tags=["OpenInference"])


@router.post(
    "/v2/models/{model}/infer",
    operation_id="ModelInfer",
    response_model=ModelInferResponse,
    responses=ERRORS.references(_INFER),
)
@rpc(SERVICE, "ModelInfer")
async def infer(model: ModelName, body: ModelInferRequest) -> None:
    """Classifies 1 to 64 texts."""


@router.post(
    "/v2/models/{model}/versions/{version}/infer",
    operation_id="ModelInferOfVersion",
    response_model=ModelInferResponse,
    responses=ERRORS.references(_INFER),
)
@rpc(SERVICE, "ModelInfer")
async def infer_by_version(model: ModelName, version: Version, body: ModelInferRequest) -> None:
    """The same by one of the served versions."""


@router.get("/v2", operation_id="ServerMetadata", responses=ERRORS.references(_COMMON))
@rpc(SERVICE, "ServerMetadata")
async def server_metadata(request: Request) -> ServerMetadata:
    """The server's name, version and extensions."""
    return ServerMetadata.model_validate(_parts(request).models.server())


@router.get("/v2/health/live", operation_id="ServerLive", response_model=ServerLive, openapi_extra=KEYLESS)
@rpc(SERVICE, "ServerLive")
async def server_live() -> None:
    """Whether the process answers at all."""


@router.get(
    "/v2/health/ready",
    operation_id="ServerReady",
    response_model=ServerReady,
    responses={400: {"model": ServerReady, "description": "Requests cannot be taken now."}},
    openapi_extra=KEYLESS,
)
@rpc(SERVICE, "ServerReady")
async def server_ready() -> None:
    """Whether requests can be taken."""


@router.get("/v2/models/stats", operation_id="ModelStatisticsOfAll", responses=ERRORS.references(_COMMON))
@rpc(SERVICE, "ModelStatistics")
async def statistics_of_all(request: Request) -> Statistics:
    """What was counted of every model."""
    return _statistics(request)


@router.get("/v2/models/{model}", operation_id="ModelMetadata", responses=ERRORS.references(_MODEL))
@rpc(SERVICE, "ModelMetadata")
async def model_metadata(model: ModelName, request: Request) -> ModelMetadata:
    """The model's versions and tensors."""
    return _metadata(request, model)


@router.get(
    "/v2/models/{model}/versions/{version}",
    operation_id="ModelMetadataOfVersion",
    responses=ERRORS.references(_MODEL),
)
@rpc(SERVICE, "ModelMetadata")
async def version_metadata(model: ModelName, version: Version, request: Request) -> ModelMetadata:
    """The same of one version."""
    return _metadata(request, model, version)


_READINESS: Final[dict[int | str, dict[str, Any]]] = {
    **ERRORS.references(_MODEL),
    400: {"model": ModelReady | OpenInferenceError, "description": _NOT_READY},
}


@router.get("/v2/models/{model}/ready", operation_id="ModelReady", response_model=ModelReady, responses=_READINESS)
@rpc(SERVICE, "ModelReady")
async def model_ready(model: ModelName, request: Request) -> JSONResponse:
    """Whether the model can answer: 200, or 400 where it cannot."""
    return _ready(request, model)


@router.get(
    "/v2/models/{model}/versions/{version}/ready",
    operation_id="ModelReadyOfVersion",
    response_model=ModelReady,
    responses=_READINESS,
)
@rpc(SERVICE, "ModelReady")
async def version_ready(model: ModelName, version: Version, request: Request) -> JSONResponse:
    """Whether the version can answer."""
    return _ready(request, model, version)


@router.get("/v2/models/{model}/config", operation_id="ModelConfig", responses=ERRORS.references(_MODEL))
@rpc(SERVICE, "ModelConfig")
async def model_config(model: ModelName, request: Request) -> ModelConfig:
    """The model's configuration."""
    return _config(request, model)


@router.get(
    "/v2/models/{model}/versions/{version}/config",
    operation_id="ModelConfigOfVersion",
    responses=ERRORS.references(_MODEL),
)
@rpc(SERVICE, "ModelConfig")
async def version_config(model: ModelName, version: Version, request: Request) -> ModelConfig:
    """The same of one version."""
    return _config(request, model, version)


@router.get("/v2/models/{model}/stats", operation_id="ModelStatistics", responses=ERRORS.references(_MODEL))
@rpc(SERVICE, "ModelStatistics")
async def model_statistics(model: ModelName, request: Request) -> Statistics:
    """What was counted of the model since the gateway started."""
    return _statistics(request, model)


@router.get(
    "/v2/models/{model}/versions/{version}/stats",
    operation_id="ModelStatisticsOfVersion",
    responses=ERRORS.references(_MODEL),
)
@rpc(SERVICE, "ModelStatistics")
async def version_statistics(model: ModelName, version: Version, request: Request) -> Statistics:
    """The same of one version."""
    return _statistics(request, model, version)


@router.post("/v2/repository/index", operation_id="RepositoryIndex", responses=ERRORS.references(_BODY))
@rpc(SERVICE, "RepositoryIndex")
async def repository_index(body: RepositoryIndexRequest, request: Request) -> list[RepositoryIndexEntry]:
    """Every model, version by version."""
    entries = _parts(request).models.index(_tenant(request), only_ready=body.ready)
    return [RepositoryIndexEntry.model_validate(entry) for entry in entries]


@router.post(
    "/v2/repository/models/{model}/load",
    operation_id="RepositoryModelLoad",
    responses=ERRORS.references(_REPOSITORY),
)
@rpc(SERVICE, "RepositoryModelLoad")
async def load_model(model: ModelName, body: RepositoryRequest, request: Request) -> Done:
    """Rolls a version out where none is served, and waits until it can answer."""
    await _parts(request).repository.load(_order(request, model, body))
    return Done()


@router.post(
    "/v2/repository/models/{model}/unload",
    operation_id="RepositoryModelUnload",
    responses=ERRORS.references(_REPOSITORY),
)
@rpc(SERVICE, "RepositoryModelUnload")
async def unload_model(model: ModelName, body: RepositoryRequest, request: Request) -> Done:
    """Stops the deployment, and waits until it answers no more."""
    await _parts(request).repository.unload(_order(request, model, body))
    return Done()


def _parts(request: Request) -> OpenInference:
    parts: OpenInference = request.app.state.open_inference
    return parts


def _admitted(request: Request) -> AdmittedRequest:
    admitted: AdmittedRequest = request.scope["admitted"]
    return admitted


def _tenant(request: Request) -> str:
    return _admitted(request).principal.tenant


def _metadata(request: Request, model: str, version: str = "") -> ModelMetadata:
    return ModelMetadata.model_validate(_parts(request).models.metadata(_tenant(request), model, version))


def _config(request: Request, model: str, version: str = "") -> ModelConfig:
    return ModelConfig.model_validate(_parts(request).models.config(_tenant(request), model, version))


def _statistics(request: Request, model: str = "", version: str = "") -> Statistics:
    return Statistics.model_validate(_parts(request).models.statistics(_tenant(request), model, version))


def _ready(request: Request, model: str, version: str = "") -> JSONResponse:
    ready = _parts(request).models.is_ready(_tenant(request), model, version)
    return JSONResponse(ModelReady(name=model, ready=ready).model_dump(), 200 if ready else 400)


def _order(request: Request, model: str, body: RepositoryRequest) -> Order:
    admitted = _admitted(request)
    return Order(
        tenant=admitted.principal.tenant,
        model=model,
        parameters=body.parameters,
        authorization=admitted.headers.get(b"authorization", ""),
        deadline=admitted.deadline,
    )
