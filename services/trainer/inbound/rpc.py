"""`millrace.v1.TrainerService`: each method turns its message into a command and calls a handler."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from services.contracts.errors import Invalid
from services.contracts.rpc import trainer_pb2 as wire
from services.contracts.rpc import trainer_pb2_grpc
from services.contracts.rpc.common_pb2 import Artifact, Interval, SliceScore, Variant
from services.kit.requests import caller, page_size, read_reason
from services.kit.rpc import RpcServer
from services.trainer import handlers
from services.trainer.domain.datasets import Dataset
from services.trainer.domain.runs import Run, RunStatus
from services.trainer.ports import Ports

SERVICE: Final = "millrace.v1.TrainerService"
FOLLOW_SECONDS: Final = 0.5
KIB: Final = 1024


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
        size = page_size(request.page.page_size)
        found = await handlers.list_datasets(caller().tenant, self._ports, after=request.page.page_token, limit=size)
        following = found[-1].announced.dataset if len(found) == size else ""
        return wire.ListDatasetsResponse(datasets=map(_dataset, found), next_page_token=following)

    async def GetDataset(self, request: wire.GetDatasetRequest, context: Any) -> wire.Dataset:
        return _dataset(await handlers.get_dataset(caller().tenant, request.dataset, self._ports))

    async def ListRuns(self, request: wire.ListRunsRequest, context: Any) -> wire.ListRunsResponse:
        size = page_size(request.page.page_size)
        if request.status and request.status not in tuple(RunStatus):
            raise UnknownStatus(status=request.status[:50])
        found = await handlers.list_runs(
            caller().tenant,
            self._ports,
            model=request.model,
            status=request.status,
            before=request.page.page_token,
            limit=size,
        )
        following = found[-1].id if len(found) == size else ""
        return wire.ListRunsResponse(runs=map(_run, found), next_page_token=following)

    async def GetRun(self, request: wire.GetRunRequest, context: Any) -> wire.Run:
        return _run(await handlers.get_run(caller().tenant, request.run, self._ports))

    async def CancelRun(self, request: wire.CancelRunRequest, context: Any) -> wire.Run:
        asking, reason = caller(), read_reason(request.reason)
        cancelled = await handlers.cancel_run(
            asking.tenant, request.run, self._ports, actor=asking.actor, reason=reason
        )
        return _run(cancelled)

    async def GetRunLogs(self, request: wire.GetRunLogsRequest, context: Any) -> AsyncIterator[wire.RunLogLine]:
        number = request.after_line
        while True:
            run, lines = await handlers.read_log(caller().tenant, request.run, self._ports, after=number)
            for text in lines:
                number += 1
                yield wire.RunLogLine(number=number, text=text)
            if run.ended or not request.follow:
                return
            await self._ports.clock.sleep(FOLLOW_SECONDS)


def _dataset(dataset: Dataset) -> wire.Dataset:
    announced = dataset.announced
    return wire.Dataset(
        name=announced.dataset,
        uri=announced.uri,
        format=announced.format,
        model=announced.model,
        announced_at=_timestamp(dataset.announced_at),
        latest_run=dataset.latest_run,
    )


def _run(run: Run) -> wire.Run:
    message = wire.Run(
        run=run.id,
        model=run.model,
        dataset=run.dataset,
        status=run.status,
        cause=run.cause,
        progress=run.progress,
        attempt=run.attempt,
        created_at=_timestamp(run.created_at),
        ended_at=_timestamp(run.ended_at),
        trace_id=run.trace_id,
    )
    if run.failure is not None:
        message.failure_code, message.failure_reason = run.failure.code, run.failure.reason
    if run.artifact is not None:
        size = -(-run.artifact.size_bytes // KIB)
        stored = Artifact(uri=run.artifact.uri, digest=run.artifact.digest, signer=run.artifact.signer, size_kib=size)
        message.artifact.CopyFrom(stored)
    if run.result is not None:
        _add_scores(message, run)
    return message


def _add_scores(message: wire.Run, run: Run) -> None:
    result = run.result
    if result is None:
        return
    message.tfidf_macro_f1 = result.metrics.tfidf_macro_f1
    for part in result.metrics.slices:
        interval = Interval(low=part.macro_f1_ci95.low, high=part.macro_f1_ci95.high)
        message.slices.append(
            SliceScore(
                name=part.name,
                rows=part.rows,
                accuracy=part.accuracy,
                macro_f1=part.macro_f1,
                macro_f1_ci95=interval,
            )
        )
    for variant in result.variants:
        message.variants.append(
            Variant(
                precision=variant.precision,
                size_kib=-(-variant.size_bytes // KIB),
                macro_f1=variant.macro_f1,
                agreement=variant.agreement,
                speedup=variant.speedup,
                passed=variant.passed,
                reason=variant.reason,
            )
        )


def _timestamp(at: datetime | None) -> Timestamp | None:
    if at is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
