"""The registry and the trainer as the gateway sees them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from services.contracts.errors import NotFound
from services.contracts.rpc import common_pb2, registry_pb2, registry_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from services.registry.errors import PreconditionFailed


class FakeRegistry(registry_pb2_grpc.RegistryServiceServicer):
    """Knows one model, and remembers what it was asked with. `moves` does what a rollout or a stop is to do."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.model = registry_pb2.Model(name="news", aliases={"champion": 2})
        self.deployment = registry_pb2.Deployment(name="news", model="news", generation=7, version=2)
        self.moved: list[tuple[str, Any]] = []
        self.moves: Callable[[Any], Awaitable[int]] = self._at_rest

    async def ListHistory(  # noqa: N802
        self, request: registry_pb2.ListHistoryRequest, context: Any
    ) -> registry_pb2.ListHistoryResponse:
        until = common_pb2.HistoryEntry(kind=request.kind, at=request.since)
        return registry_pb2.ListHistoryResponse(entries=[until], next_page_token=request.page_token)

    async def GetModel(self, request: registry_pb2.GetModelRequest, context: Any) -> registry_pb2.Model:  # noqa: N802
        self.metadata = {str(name): str(value) for name, value in context.invocation_metadata()}
        if request.model != "news":
            raise UnknownModel(model=request.model)
        return self.model

    async def GetVersion(self, request: registry_pb2.GetVersionRequest, context: Any) -> registry_pb2.Version:  # noqa: N802
        return registry_pb2.Version(model=request.model, number=self.model.aliases[request.version.removeprefix("@")])

    async def GetDeployment(self, request: registry_pb2.GetDeploymentRequest, context: Any) -> registry_pb2.Deployment:  # noqa: N802
        if request.deployment != "news":
            raise UnknownModel(model=request.deployment)
        return self.deployment

    async def StartRollout(self, request: registry_pb2.StartRolloutRequest, context: Any) -> registry_pb2.Deployment:  # noqa: N802
        generation = await self._move("StartRollout", request, context)
        return registry_pb2.Deployment(name=request.deployment, version=int(request.version), generation=generation)

    async def StopDeployment(self, request: registry_pb2.MoveRolloutRequest, context: Any) -> registry_pb2.Deployment:  # noqa: N802
        generation = await self._move("StopDeployment", request, context)
        return registry_pb2.Deployment(name=request.deployment, generation=generation)

    async def _move(self, method: str, request: Any, context: Any) -> int:
        self.metadata = {str(name): str(value) for name, value in context.invocation_metadata()}
        self.moved.append((method, request))
        if request.HasField("expected_generation") and request.expected_generation != self.deployment.generation:
            raise PreconditionFailed(deployment="news", current=7, expected=request.expected_generation)
        return await self.moves(request)

    async def _at_rest(self, request: Any) -> int:
        return 0

    async def ListModels(  # noqa: N802
        self, request: registry_pb2.ListModelsRequest, context: Any
    ) -> registry_pb2.ListModelsResponse:
        raise KeyError("/a/secret/path")


class FakeTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Has one run, whose log breaks off after its second line; following it never ends."""

    def __init__(self) -> None:
        self.followers = 0

    async def GetRunLogs(  # noqa: N802
        self, request: trainer_pb2.GetRunLogsRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.RunLogLine]:
        if request.run != "run-1":
            raise UnknownRun(run=request.run)
        yield trainer_pb2.RunLogLine(number=1, text="begun")
        yield trainer_pb2.RunLogLine(number=2, text="going on")
        if not request.follow:
            raise UnknownRun(run="the rest of it")
        self.followers += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.followers -= 1


class UnknownRun(NotFound):
    """No run is named '{run}'."""


class UnknownModel(NotFound):
    """No model is named '{model}'."""

    field = "model"
