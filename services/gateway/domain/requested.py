"""Requests that came as events, and the events that answer them. Pure."""

import base64
import hashlib
from array import array
from collections.abc import Mapping
from datetime import datetime
from sys import byteorder
from typing import Final

from services.contracts.errors import Refusal
from services.contracts.events import InferenceCompleted, InferenceRequested
from services.contracts.inference import RequestFailure, ScoredLabel, TextLabelled
from services.gateway.domain.requests import Answer, Classify, Embedding
from services.kit.messaging.envelope import Envelope

SOURCE: Final = "millrace/gateway"
_ID_DIGITS: Final = 32


def request_of(asked: Envelope[InferenceRequested]) -> str:
    """The request's id: the caller's, or one that the event's id always gives."""
    return asked.event.request or f"req-{_digest(asked)}"


def answer_id(asked: Envelope[InferenceRequested]) -> str:
    """The id of the answer's event, the same for every delivery of the request."""
    return f"answer-{_digest(asked)}"


def _digest(asked: Envelope[InferenceRequested]) -> str:
    return hashlib.sha256(f"{asked.tenant}\0{asked.id}".encode()).hexdigest()[:_ID_DIGITS]


def command_of(asked: Envelope[InferenceRequested], *, deadline: float, traceparent: str) -> Classify:
    event = asked.event
    return Classify(
        tenant=asked.tenant,
        deployment=event.deployment,
        texts=event.texts,
        request=request_of(asked),
        deadline=deadline,
        sticky_key=event.sticky_key,
        traceparent=traceparent,
        version=event.version or 0,
        with_embeddings=event.with_embeddings,
        whole=event.whole_texts,
    )


def answered(asked: Envelope[InferenceRequested], answer: Answer) -> InferenceCompleted:
    predictions = [
        TextLabelled(
            label=prediction.label,
            score=prediction.score,
            scores=[ScoredLabel(label=part.label, score=part.score) for part in prediction.scores],
        )
        for prediction in answer.predictions
    ]
    return InferenceCompleted(
        request=request_of(asked),
        deployment=answer.deployment,
        model=answer.model,
        version=answer.version,
        predictions=predictions,
        embeddings=[encode_embedding(values) for values in answer.embeddings],
        tokens=answer.tokens,
    )


def refused(asked: Envelope[InferenceRequested], refusal: Refusal) -> InferenceCompleted:
    body = refusal.body()
    failure = RequestFailure(
        code=body.code, message=body.message, field=body.field, hint=body.hint, retryable=refusal.retryable
    )
    return InferenceCompleted(request=request_of(asked), deployment=asked.event.deployment, failure=failure)


def reply_to(
    asked: Envelope[InferenceRequested], event: InferenceCompleted, *, at: datetime, trace: Mapping[str, str]
) -> Envelope[InferenceCompleted]:
    """Under the key of the request's record, in the request's story; caused by the request."""
    return Envelope(
        id=answer_id(asked),
        event=event,
        source=SOURCE,
        time=at,
        tenant=asked.tenant,
        causation=asked.id,
        correlation=asked.story,
        trace=trace,
        key=asked.key,
    )


def encode_embedding(values: Embedding) -> str:
    """Base64 of little-endian float32."""
    if byteorder == "big":
        values = array("f", values)
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()
