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
from services.registry.domain.commands import (
    ApproveRollout,
    CreateDeployment,
    DeleteDeployment,
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    RollBack,
    SetAlias,
    StartRollout,
    StopDeployment,
    UpdateDeployment,
)
from services.registry.domain.state import VersionStatus
from services.registry.errors import ChainIsIntact
from services.registry.handlers import deployments, history, versions
from services.registry.handlers.changes import WriteOptions
from services.registry.handlers.deployments import PersonsCommand
from services.registry.inbound import converters
from services.registry.ports import Ports

SERVICE: Final = "millrace.v1.RegistryService"

_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)

_MoveType: TypeAlias = type[
    DeleteDeployment | ApproveRollout | PauseRollout | ResumeRollout | PromoteRollout | RollBack | StopDeployment
]


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
        matches = await versions.list_models(caller().tenant, self._ports, after=page.after, limit=page.limit)
        shown, following = page.slice(matches, lambda view: view.state.model)
        return wire.ListModelsResponse(models=[converters.model(view) for view in shown], next_page_token=following)

    async def GetModel(self, request: wire.GetModelRequest, context: Any) -> wire.Model:
        return converters.model(await versions.get_model(caller().tenant, _name(request.model, "model"), self._ports))

    async def GetVersion(self, request: wire.GetVersionRequest, context: Any) -> wire.Version:
        view = await versions.get_model(caller().tenant, _name(request.model, "model"), self._ports)
        return converters.version(view, view.resolve(request.version))

    async def ListVersions(self, request: wire.ListVersionsRequest, context: Any) -> wire.ListVersionsResponse:
        page, model = paging("ListVersions", request), _name(request.model, "model")
        status = one_of(VersionStatus, request.status, "status")
        view, matches = await versions.list_versions(
            caller().tenant, model, self._ports, status=status, before=page.number, limit=page.limit
        )
        shown, following = page.slice(matches, lambda version: version.number)
        made = [converters.version(view, version) for version in shown]
        return wire.ListVersionsResponse(versions=made, next_page_token=following)

    async def GetLineage(self, request: wire.GetLineageRequest, context: Any) -> wire.Lineage:
        model, as_of = _name(request.model, "model"), read_timestamp(request, "as_of")
        number, matches = await versions.get_lineage(caller().tenant, model, request.version, self._ports, as_of=as_of)
        return converters.lineage(model, number, matches)

    async def SetAlias(self, request: wire.SetAliasRequest, context: Any) -> wire.Model:
        model, alias = _name(request.model, "model"), _name(request.alias, "alias")
        command = SetAlias(alias, request.version or None, caller().actor, read_reason(request.reason))
        options = WriteOptions(
            idempotency_key=read_idempotency_key("SetAlias", request, context), dry_run=request.dry_run
        )
        view = await versions.set_alias(model, command, caller().tenant, self._ports, options)
        return converters.model(view, dry_run=request.dry_run)

    async def ListDeployments(self, request: wire.ListDeploymentsRequest, context: Any) -> wire.ListDeploymentsResponse:
        page = paging("ListDeployments", request)
        matches = await deployments.list_deployments(caller().tenant, self._ports, after=page.after, limit=page.limit)
        shown, following = page.slice(matches, lambda view: view.state.name)
        made = [converters.deployment(view) for view in shown]
        return wire.ListDeploymentsResponse(deployments=made, next_page_token=following)

    async def GetDeployment(self, request: wire.GetDeploymentRequest, context: Any) -> wire.Deployment:
        name = _name(request.deployment, "deployment")
        return converters.deployment(await deployments.get_deployment(caller().tenant, name, self._ports))

    async def CreateDeployment(self, request: wire.CreateDeploymentRequest, context: Any) -> wire.Deployment:
        command = CreateDeployment(
            deployment=_name(request.deployment, "deployment"),
            spec=converters.new_spec(request, _name(request.model, "model"), self._ports.rules.rollout),
            actor=caller().actor,
            reason=read_reason(request.reason),
        )
        key = read_idempotency_key("CreateDeployment", request, context)
        return await self._execute(command, WriteOptions(idempotency_key=key, dry_run=request.dry_run))

    async def UpdateDeployment(self, request: wire.UpdateDeploymentRequest, context: Any) -> wire.Deployment:
        if request.HasField("model"):
            _name(request.model, "model")
        command = UpdateDeployment(
            deployment=_name(request.deployment, "deployment"),
            changes=converters.spec_changes(request),
            actor=caller().actor,
            reason=read_reason(request.reason),
        )
        return await self._execute(command, _options("UpdateDeployment", request, context))

    async def DeleteDeployment(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(DeleteDeployment, request, context)

    async def StartRollout(self, request: wire.StartRolloutRequest, context: Any) -> wire.Deployment:
        command = StartRollout(
            deployment=_name(request.deployment, "deployment"),
            version=1,
            actor=caller().actor,
            reason=read_reason(request.reason),
            skip_gate=request.skip_gate,
            policy=converters.policy_changes(request.policy),
        )
        options = _options("StartRollout", request, context)
        view = await deployments.start_rollout(command, request.version, caller().tenant, self._ports, options)
        return converters.deployment(view, dry_run=request.dry_run)

    async def ApproveRollout(self, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        return await self._move(ApproveRollout, request, context)

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
        lines = await history.list_history(
            caller().tenant, self._ports, chosen, after=after, before=before, limit=page.limit
        )
        shown, following = page.slice(lines, lambda line: line.sequence)
        entries = [converters.history_entry(line) for line in shown]
        return wire.ListHistoryResponse(entries=entries, next_page_token=following)

    async def _chain(self, chosen: HistoryFilter, page: PageRequest) -> wire.ListHistoryResponse:
        if chosen != HistoryFilter():
            raise ChainIsIntact
        lines = await history.list_chain(caller().tenant, self._ports, after=page.number, limit=page.limit)
        shown, following = page.slice(lines, lambda line: line.sequence)
        entries = [converters.history_entry(line) for line in shown]
        return wire.ListHistoryResponse(entries=entries, next_page_token=following)

    async def GetHistoryHead(self, request: wire.GetHistoryHeadRequest, context: Any) -> wire.HistoryHead:
        sequence, head = await history.history_head(self._ports)
        return wire.HistoryHead(sequence=sequence, hash=head)

    async def _move(self, move: _MoveType, request: wire.MoveRolloutRequest, context: Any) -> wire.Deployment:
        deployment = _name(request.deployment, "deployment")
        command = move(deployment=deployment, actor=caller().actor, reason=read_reason(request.reason))
        return await self._execute(command, _options(move.__name__, request, context))

    async def _execute(self, command: PersonsCommand, options: WriteOptions) -> wire.Deployment:
        view = await deployments.execute(command, caller().tenant, self._ports, options)
        return converters.deployment(view, dry_run=options.dry_run)


def _options(
    method: str,
    request: wire.StartRolloutRequest | wire.UpdateDeploymentRequest | wire.MoveRolloutRequest,
    context: Any,
) -> WriteOptions:
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
    """`model/NAME` or `deployment/NAME`, a bare name being a model's; empty for all."""
    if not text:
        return ""
    kind, _, name = text.rpartition("/")
    if kind not in ("", "model", "deployment"):
        raise InvalidName(what="stream", field="stream")
    return f"{kind or 'model'}/{_name(name, 'stream')}"
