"""`millrace.v1.TrainerService`: each method turns its message into a command and calls a handler."""

from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from google.protobuf.message import Message

from services.contracts.errors import Invalid
from services.contracts.rpc import trainer_pb2 as wire
from services.contracts.rpc import trainer_pb2_grpc
from services.kit.identity.auth import Principal
from services.kit.transport.grpc_requests import caller, read_idempotency_key, read_reason, read_timestamp
from services.kit.transport.pagination import paging
from services.kit.transport.rpc import RpcServer
from services.trainer.domain.datasets import StartRun
from services.trainer.domain.runs import RunFilter, RunStatus
from services.trainer.errors import BadRecipe, NulCharacter
from services.trainer.handlers import attempts, lookup, runs
from services.trainer.inbound.converters import dataset_message, run_message, version_message
from services.trainer.ports import Ports

SERVICE: Final = "millrace.v1.TrainerService"
FOLLOW_SECONDS: Final = 0.5


class UnknownStatus(Invalid):
    """No run can be {status}."""

    field = "status"
    hint = "one of queued, preparing, training, evaluating, exporting, succeeded, failed, cancelled"


def serve(server: RpcServer, ports: Ports) -> None:
    server.add(trainer_pb2_grpc.add_TrainerServiceServicer_to_server, TrainerRpc(ports), SERVICE)


class TrainerRpc(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def ListDatasets(self, request: wire.ListDatasetsRequest, context: Any) -> wire.ListDatasetsResponse:
        who, page = asker(request), paging("ListDatasets", request)
        matches = await lookup.list_datasets(who.tenant, self._ports, after=page.after, limit=page.limit)
        shown, following = page.slice(matches, lambda dataset: dataset.announced.dataset)
        return wire.ListDatasetsResponse(datasets=map(dataset_message, shown), next_page_token=following)

    async def GetDataset(self, request: wire.GetDatasetRequest, context: Any) -> wire.Dataset:
        return dataset_message(*await lookup.get_dataset(asker(request).tenant, request.dataset, self._ports))

    async def ListDatasetVersions(
        self, request: wire.ListDatasetVersionsRequest, context: Any
    ) -> wire.ListDatasetVersionsResponse:
        who, page = asker(request), paging("ListDatasetVersions", request)
        matches = await lookup.list_versions(
            who.tenant, request.dataset, self._ports, after=page.after, limit=page.limit
        )
        shown, following = page.slice(matches, lambda version: version.content_hash)
        return wire.ListDatasetVersionsResponse(versions=map(version_message, shown), next_page_token=following)

    async def GetDatasetVersion(self, request: wire.GetDatasetVersionRequest, context: Any) -> wire.DatasetVersion:
        tenant = asker(request).tenant
        return version_message(await lookup.get_version(tenant, request.dataset, request.content_hash, self._ports))

    async def ListRuns(self, request: wire.ListRunsRequest, context: Any) -> wire.ListRunsResponse:
        who, page = asker(request), paging("ListRuns", request)
        if request.status and request.status not in tuple(RunStatus):
            raise UnknownStatus(status=request.status[:50])
        run_filter = RunFilter(request.model, request.status, request.dataset, read_timestamp(request, "since"))
        matches = await lookup.list_runs(who.tenant, self._ports, run_filter, before=page.after, limit=page.limit)
        shown, following = page.slice(matches, lambda run: run.id)
        return wire.ListRunsResponse(runs=map(run_message, shown), next_page_token=following)

    async def GetRun(self, request: wire.GetRunRequest, context: Any) -> wire.Run:
        return run_message(await lookup.get_run(asker(request).tenant, request.run, self._ports))

    async def StartRun(self, request: wire.StartRunRequest, context: Any) -> wire.Run:
        who, reason = asker(request), read_reason(request.reason)
        command = StartRun(
            tenant=who.tenant,
            dataset=request.dataset,
            actor=who.actor,
            reason=reason,
            content_hash=request.content_hash,
            model=request.model,
            recipe=_recipe(request.recipe_json),
            deploy=not request.hold_back,
        )
        return run_message(
            await runs.start_run(command, read_idempotency_key("StartRun", request, context), self._ports)
        )

    async def CancelRun(self, request: wire.CancelRunRequest, context: Any) -> wire.Run:
        who, reason = asker(request), read_reason(request.reason)
        idempotency_key = read_idempotency_key("CancelRun", request, context)
        cancelled = await attempts.cancel_run(
            who.tenant, request.run, self._ports, actor=who.actor, reason=reason, idempotency_key=idempotency_key
        )
        return run_message(cancelled)

    async def GetRunLogs(self, request: wire.GetRunLogsRequest, context: Any) -> AsyncIterator[wire.RunLogLine]:
        number = request.after_line
        while True:
            run, lines = await lookup.read_log(asker(request).tenant, request.run, self._ports, after=number)
            for text in lines:
                number += 1
                yield wire.RunLogLine(number=number, text=text)
            if len(lines) == lookup.LOG_LINES:
                continue
            if run.ended or not request.follow:
                return
            await self._ports.clock.sleep(FOLLOW_SECONDS)


def asker(request: Message) -> Principal:
    """Who calls. Raises NulCharacter, which no database of ours could look for."""
    for spec, value in request.ListFields():
        if isinstance(value, Message):
            asker(value)
        elif isinstance(value, str) and "\0" in value:
            raise NulCharacter(field=spec.name)
    return caller()


def _recipe(text: str) -> dict[str, object]:
    """What differs from the announcement's recipe. Raises BadRecipe."""
    if not text:
        return {}
    try:
        sent = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRecipe(problem="it is not JSON") from error
    if not isinstance(sent, dict):
        raise BadRecipe(problem="it must be a JSON object")
    return sent
