"""`millrace.v1.RegistryService`: each method turns its message into a command and calls a handler."""

from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter, ValidationError

from services.contracts.errors import Invalid
from services.contracts.names import Name
from services.contracts.rpc import registry_pb2 as wire
from services.contracts.rpc import registry_pb2_grpc
from services.kit.core.hash_chain import HistoryFilter
from services.kit.transport.grpc_requests import (
    caller,
    one_of,
    read_filter,
    read_idempotency_key,
    read_reason,
    read_timestamp,
    within_column,
)
from services.kit.transport.pagination import PageRequest, paging
from services.kit.transport.rpc import RpcServer
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
from services.registry.domain.state import VersionStatus
from services.registry.errors import ChainIsWhole
from services.registry.handlers import WriteOptions
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
        page = paging("ListModels", request)
        states = await handlers.list_models(caller().tenant, self._ports, after=page.after, limit=page.limit)
        shown, following = page.cut(states, lambda state: state.model)
        return wire.ListModelsResponse(models=[convert.model(state) for state in shown], next_page_token=following)

    async def GetModel(self, request: wire.GetModelRequest, context: Any) -> wire.Model:
        return convert.model(await handlers.get_model(caller().tenant, _name(request.model, "model"), self._ports))

    async def GetVersion(self, request: wire.GetVersionRequest, context: Any) -> wire.Version:
        state = await handlers.get_model(caller().tenant, _name(request.model, "model"), self._ports)
        return convert.version(state, state.resolve(request.version))

    async def ListVersions(self, request: wire.ListVersionsRequest, context: Any) -> wire.ListVersionsResponse:
        page, model = paging("ListVersions", request), _name(request.model, "model")
        status = one_of(VersionStatus, request.status, "status")
        state, found = await handlers.list_versions(
            caller().tenant, model, self._ports, status=status, before=page.number, limit=page.limit
        )
        shown, following = page.cut(found, lambda version: version.number)
        versions = [convert.version(state, version) for version in shown]
        return wire.ListVersionsResponse(versions=versions, next_page_token=following)

    async def GetLineage(self, request: wire.GetLineageRequest, context: Any) -> wire.Lineage:
        model, as_of = _name(request.model, "model"), read_timestamp(request, "as_of")
        number, found = await handlers.get_lineage(caller().tenant, model, request.version, self._ports, as_of=as_of)
        return convert.lineage(model, number, found)

    async def SetAlias(self, request: wire.SetAliasRequest, context: Any) -> wire.Model:
        model, alias = _name(request.model, "model"), _name(request.alias, "alias")
        command = SetAlias(alias, request.version or None, caller().actor, read_reason(request.reason))
        options = WriteOptions(
            idempotency_key=read_idempotency_key("SetAlias", request, context), dry_run=request.dry_run
        )
        state = await handlers.set_alias(model, command, caller().tenant, self._ports, options)
        return convert.model(state, dry_run=request.dry_run)

    async def ListDeployments(self, request: wire.ListDeploymentsRequest, context: Any) -> wire.ListDeploymentsResponse:
        page = paging("ListDeployments", request)
        found = await handlers.list_deployments(caller().tenant, self._ports, after=page.after, limit=page.limit)
        shown, following = page.cut(found, lambda pair: pair[0].name)
        made = [convert.deployment(state, known.name) for known, state in shown]
        return wire.ListDeploymentsResponse(deployments=made, next_page_token=following)

    async def GetDeployment(self, request: wire.GetDeploymentRequest, context: Any) -> wire.Deployment:
        name = _name(request.deployment, "deployment")
        return convert.deployment(await handlers.get_deployment(caller().tenant, name, self._ports), name)

    async def StartRollout(self, request: wire.StartRolloutRequest, context: Any) -> wire.Deployment:
        command = StartRollout(
            deployment=_name(request.deployment, "deployment"),
            version=1,
            actor=caller().actor,
            reason=read_reason(request.reason),
            skip_gate=request.skip_gate,
            policy=convert.rollout_policy(request.policy, self._ports.rules.rollout),
        )
        options = _terms("StartRollout", request, context)
        state = await handlers.start_rollout(command, request.version, caller().tenant, self._ports, options)
        return convert.deployment(state, command.deployment, dry_run=request.dry_run)

    async def PauseRollout(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(PauseRollout, request, context)

    async def ResumeRollout(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(ResumeRollout, request, context)

    async def PromoteRollout(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(PromoteRollout, request, context)

    async def RollBack(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(RollBack, request, context)

    async def StopDeployment(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(StopDeployment, request, context)

    async def ListHistory(self, request: wire.ListHistoryRequest, context: Any) -> wire.ListHistoryResponse:
        page, chosen = paging("ListHistory", request), _chosen(request)
        if request.whole_chain:
            return await self._chain(chosen, page)
        after = max(within_column(request.after_sequence), 0 if chosen.newest_first else page.number)
        before = page.number if chosen.newest_first else 0
        lines = await handlers.list_history(
            caller().tenant, self._ports, chosen, after=after, before=before, limit=page.limit
        )
        shown, following = page.cut(lines, lambda line: line.sequence)
        entries = [convert.history_entry(line) for line in shown]
        return wire.ListHistoryResponse(entries=entries, next_page_token=following)

    async def _chain(self, chosen: HistoryFilter, page: PageRequest) -> wire.ListHistoryResponse:
        if chosen != HistoryFilter():
            raise ChainIsWhole
        lines = await handlers.list_chain(caller().tenant, self._ports, after=page.number, limit=page.limit)
        shown, following = page.cut(lines, lambda line: line.sequence)
        entries = [convert.history_entry(line) for line in shown]
        return wire.ListHistoryResponse(entries=entries, next_page_token=following)

    async def GetHistoryHead(self, request: wire.GetHistoryHeadRequest, context: Any) -> wire.HistoryHead:
        sequence, head = await handlers.history_head(self._ports)
        return wire.HistoryHead(sequence=sequence, hash=head)

    async def _move(self, move: _MoveType, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        deployment = _name(request.deployment, "deployment")
        command = move(deployment=deployment, actor=caller().actor, reason=read_reason(request.reason))
        options = _terms(move.__name__, request, context)
        state = await handlers.move_rollout(command, caller().tenant, self._ports, options)
        return convert.deployment(state, deployment, dry_run=request.dry_run)


def _terms(method: str, request: wire.StartRolloutRequest | wire.MoveRolloutRequest, context: Any) -> WriteOptions:
    expected = request.expected_generation if request.HasField("expected_generation") else None
    idempotency_key = read_idempotency_key(method, request, context)
    return WriteOptions(idempotency_key=idempotency_key, expected_generation=expected, dry_run=request.dry_run)


def _chosen(request: wire.ListHistoryRequest) -> HistoryFilter:
    return HistoryFilter(
        stream=_stream(request.stream),
        kind=read_filter(request.kind, "kind"),
        actor=read_filter(request.actor, "actor"),
        since=read_timestamp(request, "since"),
        until=read_timestamp(request, "until"),
        newest_first=request.newest_first,
    )


def _name(text: str, what: str) -> str:
    try:
        return _NAME.validate_python(text)
    except ValidationError as error:
        raise InvalidName(what=what, field=what) from error


def _stream(text: str) -> str:
    """`model/NAME`, or empty for all."""
    return text and f"model/{_name(text.removeprefix('model/'), 'stream')}"
