"""The gRPC service of the protocol, `inference.GRPCInferenceService`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from google.protobuf.json_format import ParseDict

from services.contracts.access import OIP_NOT_OFFERED
from services.contracts.errors import BadField, InternalError, MillraceError
from services.contracts.rpc import open_inference_pb2 as pb
from services.contracts.rpc import open_inference_pb2_grpc as pb_grpc
from services.gateway.errors import ExtensionNotOffered
from services.gateway.handlers import answer
from services.gateway.inbound.oip.grpc_converters import read_request, read_values, refused, write_answer
from services.gateway.inbound.oip.infer import predict_command
from services.gateway.inbound.oip.models import Models
from services.gateway.inbound.oip.repository import Order, Repository
from services.gateway.inbound.sampling import Sampler
from services.gateway.ports import Limiter, Ports
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.identity.auth import Principal
from services.kit.transport.grpc_requests import caller

SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
STREAM_IN_FLIGHT: Final = 64
"""Requests of one client stream that are worked on at once; more wait unread."""


class OpenInferenceRpc(pb_grpc.GRPCInferenceServiceServicer):
    """Translates; the rules are the handlers'."""

    def __init__(
        self,
        ports: Ports,
        models: Models,
        repository: Repository,
        sampler: Sampler,
        limiter: Limiter,
        *,
        is_ready: Callable[[], bool],
        request_seconds: float,
    ) -> None:
        self._ports = ports
        self._models = models
        self._repository = repository
        self._sampler = sampler
        self._limiter = limiter
        self._is_ready = is_ready
        self._request_seconds = request_seconds

    # --- health and metadata

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Any) -> pb.ServerMetadataResponse:
        caller()
        return ParseDict(self._models.server(), pb.ServerMetadataResponse())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        tenant = caller().tenant
        return pb.ModelReadyResponse(ready=self._models.is_ready(tenant, request.name, request.version))

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        tenant = caller().tenant
        return ParseDict(self._models.metadata(tenant, request.name, request.version), pb.ModelMetadataResponse())

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:
        tenant = caller().tenant
        config = self._models.config(tenant, request.name, request.version)
        return ParseDict({"config": config}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Any) -> pb.ModelStatisticsResponse:
        tenant = caller().tenant
        return ParseDict(self._models.statistics(tenant, request.name, request.version), pb.ModelStatisticsResponse())

    # --- the repository

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Any) -> pb.RepositoryIndexResponse:
        tenant = caller().tenant
        _check_repository(request.repository_name)
        models = self._models.index(tenant, only_ready=request.ready)
        return ParseDict({"models": models}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Any
    ) -> pb.RepositoryModelLoadResponse:
        await self._repository.load(self._order(request, caller(), context))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Any
    ) -> pb.RepositoryModelUnloadResponse:
        await self._repository.unload(self._order(request, caller(), context))
        return pb.RepositoryModelUnloadResponse()

    def _order(self, request: Any, principal: Principal, context: Any) -> Order:
        _check_repository(request.repository_name)
        return Order(
            tenant=principal.tenant,
            model=request.model_name,
            parameters=read_values(request.parameters, "parameters"),
            authorization=_metadata(context).get("authorization", ""),
            deadline=self._ports.clock.monotonic() + self._seconds(context),
        )

    # --- inference

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        principal = caller()
        return await self._answer(request, principal, self._seconds(context))

    async def ModelStreamInfer(  # type: ignore[override]
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> None:
        """Answers in the order of the requests: an error names none, so clients count."""
        principal = caller()
        parent = _metadata(context).get("traceparent")
        slots = asyncio.Semaphore(STREAM_IN_FLIGHT)
        answers: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue()

        async def read(group: asyncio.TaskGroup) -> None:
            async for request in requests:
                await slots.acquire()
                answers.put_nowait(group.create_task(self._streamed(request, principal, parent, context)))
            answers.put_nowait(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(read(group))
            while (answered := await answers.get()) is not None:
                await context.write(await answered)
                slots.release()

    async def _streamed(
        self, request: pb.ModelInferRequest, principal: Principal, parent: str | None, context: Any
    ) -> pb.ModelStreamInferResponse:
        sampling = self._sampler.decide(parent)
        try:
            permit = await self._limiter.admit(principal)
            try:
                with telemetry.following(sampling.unsampled or sampling.carrier.get("traceparent", "")):
                    response = await self._answer(request, principal, self._seconds(context))
            finally:
                permit.release()
        except MillraceError as error:
            return refused(request, error)
        except Exception:  # noqa: BLE001 - one request of many; the stream goes on
            logger.exception("a request on a stream failed inside")
            return refused(request, InternalError())
        response.parameters["triton_final_response"].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)

    async def _answer(
        self, request: pb.ModelInferRequest, principal: Principal, seconds: float
    ) -> pb.ModelInferResponse:
        infer_request = read_request(request)
        command = predict_command(
            infer_request,
            tenant=principal.tenant,
            ids=self._ports.ids,
            now=self._ports.clock.monotonic(),
            seconds=seconds,
        )
        return write_answer(await answer(command, self._ports), infer_request)

    def _seconds(self, context: Any) -> float:
        """What the caller's deadline leaves, within our own limit."""
        left = context.time_remaining()
        return self._request_seconds if left is None else max(0.0, min(float(left), self._request_seconds))


class Unoffered(grpc.GenericRpcHandler):
    """Says of an extension's method that it is not offered, to those who have a key."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        service, _, method = handler_call_details.method.strip("/").partition("/")
        if service != SERVICE.full_name or method not in OIP_NOT_OFFERED:
            return None

        async def refuse(request: bytes, context: Any) -> bytes:
            raise ExtensionNotOffered(name=OIP_NOT_OFFERED[method])

        return grpc.unary_unary_rpc_method_handler(refuse)


def _check_repository(name: str) -> None:
    if name:
        raise BadField(
            name="repository_name", problem="there is one repository, without a name", field="repository_name"
        )


def _metadata(context: Any) -> dict[str, str]:
    return {str(name): value for name, value in context.invocation_metadata() if isinstance(value, str)}
