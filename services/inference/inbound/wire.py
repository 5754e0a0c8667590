"""Between protobuf messages and commands; nothing else here or elsewhere knows both."""

from typing import Final

from services.contracts.errors import Refusal
from services.contracts.names import DEFAULT_TENANT
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
        whole=request.whole_texts,
        tenant=request.tenant or DEFAULT_TENANT,
    )


def to_embed_command(request: pb.EmbedRequest, now: float, seconds_left: float | None, bounds: Bounds) -> Classify:
    """Every answer has the embeddings; who asks for them alone is told nothing else."""
    asked = pb.ClassifyRequest(
        deployment=request.deployment,
        texts=request.texts,
        request_id=request.request_id,
        version=request.version,
        whole_texts=request.whole_texts,
    )
    return to_command(asked, now, seconds_left, bounds)


def to_response(classified: Classified, *, with_embeddings: bool) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        request_id=classified.request,
        deployment=classified.deployment,
        model=classified.model,
        version=classified.version,
        predictions=[_prediction(classified, answer) for answer in classified.answers],
        tokens=_tokens(classified),
        embeddings=_embeddings(classified) if with_embeddings else None,
    )


def to_embed_response(classified: Classified) -> pb.EmbedResponse:
    return pb.EmbedResponse(
        request_id=classified.request,
        deployment=classified.deployment,
        model=classified.model,
        version=classified.version,
        embeddings=_embeddings(classified),
        tokens=_tokens(classified),
    )


def _tokens(classified: Classified) -> int:
    return sum(answer.tokens for answer in classified.answers)


def _embeddings(classified: Classified) -> list[pb.Embedding]:
    return [pb.Embedding(values=memoryview(answer.embedding).cast("f")) for answer in classified.answers]


def _prediction(classified: Classified, answer: Scored) -> pb.Prediction:
    ranked = sorted(zip(answer.scores, classified.labels, strict=True), key=lambda pair: -pair[0])[:MAX_SCORES]
    score, label = ranked[0]
    return pb.Prediction(
        label=label, score=score, scores=[pb.LabelScore(label=label, score=score) for score, label in ranked]
    )


def to_failure(refusal: Refusal) -> pb.Failure:
    body = refusal.body()
    return pb.Failure(
        kind=refusal.kind.value,
        code=body.code,
        message=body.message,
        field=body.field or "",
        hint=body.hint or "",
        retry_after_seconds=body.retry_after_seconds or 0.0,
    )
