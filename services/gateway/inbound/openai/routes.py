"""The routes of `/v1` that OpenAI's clients know; raw ASGI serves embeddings and completions."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from opentelemetry.trace import Span

from services.gateway.domain.routing import Served
from services.gateway.errors import ModelNotFound
from services.gateway.handlers import served
from services.gateway.inbound.grpc_services import INFERENCE, REGISTRY
from services.gateway.inbound.http.responses import http_span
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.gateway.inbound.http.rpc_route import RpcRoute, rpc
from services.gateway.inbound.openai.embeddings import MAX_INPUTS, read_model
from services.gateway.inbound.openai.error_responses import ERRORS
from services.gateway.inbound.openai.generation_models import (
    OpenAIChatCompletion,
    OpenAIChatRequest,
    OpenAICompletion,
    OpenAICompletionRequest,
)
from services.gateway.inbound.openai.models import (
    OpenAIEmbeddings,
    OpenAIEmbeddingsRequest,
    OpenAIModel,
    OpenAIModelList,
)
from services.gateway.inbound.openai.request_id import current_request_id
from services.gateway.inbound.sampling import Sampler, traced
from services.gateway.ports import Ports
from services.kit.transport.http import Header, Scope

ModelId = Annotated[str, Path(description="a deployment, or `deployment@version`", examples=["topics@3"])]
OWNER: Final = "millrace"
_GENERAL: Final = (401, 403, 500, 503)


class OpenAIRoute(RpcRoute):
    """Traced as often as the hot path, and known by a request id."""

    @contextmanager
    def span(self, scope: Scope, admitted: AdmittedRequest) -> Iterator[Span]:
        sampler: Sampler = scope["app"].state.sampler
        sampling = sampler.decide(admitted.headers.get(b"traceparent"), admitted.headers.get(b"tracestate"))
        actor, path = admitted.principal.actor, scope["path"]
        opening = partial(http_span, scope["method"], self.path_format, path, sampling.carrier, actor=actor)
        with traced(sampling, opening) as span:
            span.set_attribute("millrace.request", current_request_id())
            yield span

    def headers(self) -> list[Header]:
        return [*super().headers(), (b"x-request-id", current_request_id().encode())]


router = APIRouter(route_class=OpenAIRoute, tags=["OpenAI"])


@router.get(
    "/v1/models",
    operation_id="openaiListModels",
    summary="The models of the key's tenant.",
    response_description="The answer.",
    responses=ERRORS.references(_GENERAL),
)
@rpc(REGISTRY, "ListModels")
async def list_models(request: Request) -> OpenAIModelList:
    """Each deployment as a model, and each version that it serves as one to hold on to."""
    return OpenAIModelList(data=[model for part in _served(request) for model in _models(part)])


@router.get(
    "/v1/models/{model}",
    operation_id="openaiGetModel",
    summary="One model.",
    response_description="The answer.",
    responses=ERRORS.references((*_GENERAL, 400, 404)),
)
@rpc(REGISTRY, "GetModel")
async def get_model(model: ModelId, request: Request) -> OpenAIModel:
    """A deployment, or one of the versions that it serves."""
    read_model(model)
    for part in _served(request):
        for one in _models(part):
            if one.id == model:
                return one
    raise ModelNotFound(model=model)


@router.post(
    "/v1/embeddings",
    operation_id="openaiCreateEmbeddings",
    summary=f"Embeds a text, or up to {MAX_INPUTS:,} of them, all by one version.",
    response_description="The answer.",
    response_model=OpenAIEmbeddings,
    responses=ERRORS.references(ERRORS.statuses),
)
@rpc(INFERENCE, "Embed")
async def create_embeddings(body: OpenAIEmbeddingsRequest) -> None:
    """Raw ASGI serves it before FastAPI is reached: this is for the document alone."""


@router.post(
    "/v1/chat/completions",
    operation_id="openaiCreateChatCompletion",
    summary="Answers a conversation.",
    response_description="The answer; with `stream`, chunks of it as Server-Sent Events, and `[DONE]`.",
    response_model=OpenAIChatCompletion,
    responses=ERRORS.references(ERRORS.statuses),
)
@rpc(INFERENCE, "Generate")
async def create_chat_completion(body: OpenAIChatRequest) -> None:
    """Raw ASGI serves it before FastAPI is reached: this is for the document alone."""


@router.post(
    "/v1/completions",
    operation_id="openaiCreateCompletion",
    summary="Continues a text, or several.",
    response_description="The answer; with `stream`, chunks of it as Server-Sent Events, and `[DONE]`.",
    response_model=OpenAICompletion,
    responses=ERRORS.references(ERRORS.statuses),
)
@rpc(INFERENCE, "Generate")
async def create_completion(body: OpenAICompletionRequest) -> None:
    """Raw ASGI serves it before FastAPI is reached: this is for the document alone."""


def _served(request: Request) -> tuple[Served, ...]:
    ports: Ports = request.app.state.control.ports
    admitted: AdmittedRequest = request.scope["admitted"]
    return served(admitted.principal.tenant, ports)


def _models(part: Served) -> list[OpenAIModel]:
    """The deployment as a model, and each of its versions as one to hold on to."""
    created = round(part.changed_at.timestamp())
    names = [part.deployment, *(f"{part.deployment}@{version}" for version in part.versions)]
    return [OpenAIModel(id=name, created=created, owned_by=OWNER) for name in names]
