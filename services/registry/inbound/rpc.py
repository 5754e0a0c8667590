"""`millrace.v1.RegistryService`: each method turns its message into a command and calls a handler."""

from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter, ValidationError

from services.contracts.errors import Invalid
from services.contracts.names import Name
from services.contracts.rpc import registry_pb2 as wire
from services.contracts.rpc import registry_pb2_grpc
from services.contracts.rpc.common_pb2 import Page
from services.kit.requests import caller, page_size, read_reason
from services.kit.rpc import RpcServer
from services.registry import handlers
from services.registry.domain.commands import (
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    RollBack,
    SetAlias,
    StartRollout,
    StopDeployment,
)
from services.registry.inbound import convert
from services.registry.ports import Ports

SERVICE: Final = "millrace.v1.RegistryService"

_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)

_MoveType: TypeAlias = type[PauseRollout | ResumeRollout | PromoteRollout | RollBack | StopDeployment]


class InvalidName(Invalid):
    """The {what} is not a name."""

    hint = "lower-case letters, digits, dots, dashes and underscores, at most 63"


def serve(server: RpcServer, ports: Ports) -> None:
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, RegistryRpc(ports), SERVICE)


class RegistryRpc(registry_pb2_grpc.RegistryServiceServicer):
    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def ListModels(self, request: wire.ListModelsRequest, context: Any) -> wire.ListModelsResponse:
        size = page_size(request.page.page_size)
        states = await handlers.list_models(caller().tenant, self._ports, after=_after(request.page), limit=size)
        following = states[-1].model if len(states) == size else ""
        return wire.ListModelsResponse(models=[convert.model(state) for state in states], next_page_token=following)

    async def GetModel(self, request: wire.GetModelRequest, context: Any) -> wire.Model:
        return convert.model(await handlers.get_model(caller().tenant, _name(request.model, "model"), self._ports))

    async def GetVersion(self, request: wire.GetVersionRequest, context: Any) -> wire.Version:
        state = await handlers.get_model(caller().tenant, _name(request.model, "model"), self._ports)
        return convert.version(state, state.resolve(request.version))

    async def SetAlias(self, request: wire.SetAliasRequest, context: Any) -> wire.Model:
        model, alias = _name(request.model, "model"), _name(request.alias, "alias")
        command = SetAlias(alias, request.version or None, caller().actor, read_reason(request.reason))
        return convert.model(await handlers.set_alias(model, command, caller().tenant, self._ports))

    async def ListDeployments(self, request: wire.ListDeploymentsRequest, context: Any) -> wire.ListDeploymentsResponse:
        size = page_size(request.page.page_size)
        found = await handlers.list_deployments(caller().tenant, self._ports, after=_after(request.page), limit=size)
        made = [convert.deployment(state.deployment(known.name), known.model, state) for known, state in found]
        following = found[-1][0].name if len(found) == size else ""
        return wire.ListDeploymentsResponse(deployments=made, next_page_token=following)

    async def GetDeployment(self, request: wire.GetDeploymentRequest, context: Any) -> wire.Deployment:
        name = _name(request.deployment, "deployment")
        state = await handlers.get_deployment(caller().tenant, name, self._ports)
        return convert.deployment(state.deployment(request.deployment), state.model, state)

    async def StartRollout(self, request: wire.StartRolloutRequest, context: Any) -> wire.Deployment:
        command = StartRollout(
            deployment=_name(request.deployment, "deployment"),
            version=1,
            actor=caller().actor,
            reason=read_reason(request.reason),
            skip_gate=request.skip_gate,
            policy=convert.rollout_policy(request.policy, self._ports.rules.rollout),
        )
        state = await handlers.start_rollout(
            request.deployment, request.version, command, caller().tenant, self._ports, dry_run=request.dry_run
        )
        return convert.deployment(state.deployment(request.deployment), state.model, state)

    async def PauseRollout(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(PauseRollout, request)

    async def ResumeRollout(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(ResumeRollout, request)

    async def PromoteRollout(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(PromoteRollout, request)

    async def RollBack(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(RollBack, request)

    async def StopDeployment(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(StopDeployment, request)

    async def ListHistory(self, request: wire.ListHistoryRequest, context: Any) -> wire.ListHistoryResponse:
        lines = await handlers.list_history(
            caller().tenant,
            self._ports,
            stream=_stream(request.stream),
            after=request.after_sequence,
            limit=page_size(request.page_size),
        )
        return wire.ListHistoryResponse(entries=[convert.history_entry(line) for line in lines])

    async def _move(self, move: _MoveType, request: wire.MoveRolloutRequest) -> wire.Deployment:
        deployment = _name(request.deployment, "deployment")
        command = move(deployment=deployment, actor=caller().actor, reason=read_reason(request.reason))
        state = await handlers.move_rollout(command, caller().tenant, self._ports)
        return convert.deployment(state.deployment(request.deployment), state.model, state)


def _name(text: str, what: str) -> str:
    try:
        return _NAME.validate_python(text)
    except ValidationError as error:
        raise InvalidName(what=what, at=what) from error


def _stream(text: str) -> str:
    """`model/NAME`, or empty for all."""
    return text and f"model/{_name(text.removeprefix('model/'), 'stream')}"


def _after(page: Page) -> str:
    return page.page_token and _name(page.page_token, "page_token")
