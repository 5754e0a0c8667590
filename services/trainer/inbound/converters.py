"""From what the handlers know to protobuf messages."""

from typing import Final

from services.contracts.rpc import trainer_pb2 as wire
from services.contracts.rpc.common_pb2 import Artifact, Interval, SliceScore, Variant
from services.kit.transport.grpc_requests import timestamp
from services.trainer.domain.datasets import Dataset, DatasetVersion
from services.trainer.domain.runs import Run

KIB: Final = 1024


def dataset_message(dataset: Dataset, version: DatasetVersion | None = None) -> wire.Dataset:
    announced = dataset.announced
    return wire.Dataset(
        name=announced.dataset,
        uri=announced.uri,
        format=announced.format,
        model=announced.model,
        announced_at=timestamp(dataset.announced_at),
        latest_run=dataset.latest_run,
        content_hash=dataset.content_hash or "",
        version=version_message(version) if version is not None else None,
    )


def version_message(version: DatasetVersion) -> wire.DatasetVersion:
    announced = version.announced
    return wire.DatasetVersion(
        dataset=announced.dataset,
        content_hash=version.content_hash,
        uri=announced.uri,
        format=announced.format,
        model=announced.model,
        size_bytes=version.size_bytes or 0,
        rows=version.rows or 0,
        announced_at=timestamp(version.announced_at),
        latest_run=version.latest_run,
    )


def run_message(run: Run) -> wire.Run:
    message = wire.Run(
        run=run.id,
        model=run.model,
        dataset=run.dataset,
        status=run.status,
        cause=run.cause,
        progress=run.progress,
        attempt=run.attempt,
        created_at=timestamp(run.created_at),
        ended_at=timestamp(run.ended_at),
        trace_id=run.trace_id,
        recipe_json=run.recipe.model_dump_json() if run.recipe else "",
        data_hash=run.result.data_hash if run.result else "",
        content_hash=run.content_hash,
        started_by=run.started_by,
        start_reason=run.start_reason,
        cancelled_by=run.cancelled_by,
        cancel_reason=run.cancel_reason,
        hold_back=not run.deploy,
    )
    if run.failure is not None:
        message.failure_code, message.failure_reason = run.failure.code, run.failure.reason
        message.failure_field, message.failure_hint = run.failure.field or "", run.failure.hint or ""
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
