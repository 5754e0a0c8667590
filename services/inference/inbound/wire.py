"""Between protobuf messages and commands; nothing else here or elsewhere knows both."""

from typing import Final

from services.contracts.errors import Kind, Refusal
from services.contracts.rpc import inference_pb2 as pb
from services.inference.domain.scoring import Scored
from services.inference.handlers import Classified, Classify
from services.inference.ports import Bounds

MAX_SCORES: Final = 100
"""Labels told of one text, the best first: a thousand labels times 64 texts would not fit into one message."""


def to_command(request: pb.ClassifyRequest, now: float, seconds_left: float | None, bounds: Bounds) -> Classify:
    """`seconds_left` is what the caller still waits, None when it did not say; `now` is monotonic."""
    patience = bounds.default_deadline_seconds if seconds_left is None else seconds_left
    return Classify(
        deployment=request.deployment,
        texts=list(request.texts),
        deadline=now + min(patience, bounds.longest_deadline_seconds),
        request=request.request_id,
        version=request.version,
        mirrored=request.mirrored,
    )


def to_response(classified: Classified) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        request_id=classified.request,
        deployment=classified.deployment,
        model=classified.model,
        version=classified.version,
        predictions=[_prediction(classified, answer) for answer in classified.answers],
        tokens=sum(answer.tokens for answer in classified.answers),
    )


def _prediction(classified: Classified, answer: Scored) -> pb.Prediction:
    ranked = sorted(zip(answer.scores, classified.labels, strict=True), key=lambda pair: -pair[0])[:MAX_SCORES]
    score, label = ranked[0]
    return pb.Prediction(
        label=label, score=score, scores=[pb.LabelScore(label=label, score=score) for score, label in ranked]
    )


def to_failure(refusal: Refusal) -> pb.Failure:
    body = refusal.body()
    return pb.Failure(
        kind=refusal.kind.value, code=body.code, message=body.message, field=body.field or "", hint=body.hint or ""
    )


def internal_failure() -> pb.Failure:
    """For an error that is ours: it tells nothing of the inside."""
    return pb.Failure(
        kind=Kind.INTERNAL.value,
        code="internal",
        message="Something went wrong inside.",
        hint="the service's log has it",
    )
