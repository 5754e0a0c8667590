"""Requests that came as events, and the events that answer them. Pure."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from services.contracts.errors import MillraceError
from services.contracts.events import InferenceCompleted, InferenceRequested
from services.contracts.inference import RequestFailure
from services.contracts.tasks.records import Source
from services.contracts.tasks.registry import AnyTask
from services.gateway.domain.requests import Answer, Predict
from services.kit.messaging.envelope import Envelope

SOURCE: Final = "millrace/gateway"
_ID_DIGITS: Final = 32
_BESIDE_INPUT: Final = {"texts", "with_embeddings", "whole_texts"}
"""The fields of an event that stand beside `input`, and are the request where there is none."""


def request_of(envelope: Envelope[InferenceRequested]) -> str:
    """The request's id: the caller's, or one that the event's id always gives."""
    return envelope.event.request or f"req-{_digest(envelope)}"


def answer_id(envelope: Envelope[InferenceRequested]) -> str:
    """The id of the answer's event, the same for every delivery of the request."""
    return f"answer-{_digest(envelope)}"


def _digest(envelope: Envelope[InferenceRequested]) -> str:
    return hashlib.sha256(f"{envelope.tenant}\0{envelope.id}".encode()).hexdigest()[:_ID_DIGITS]


def command_of(envelope: Envelope[InferenceRequested], task: AnyTask, *, deadline: float) -> Predict:
    """Raises BadField for what the task does not take."""
    event = envelope.event
    sent = event.input if event.input is not None else event.model_dump(include=_BESIDE_INPUT)
    return Predict(
        tenant=envelope.tenant,
        deployment=event.deployment,
        task=task,
        request=task.read(sent),
        request_id=request_of(envelope),
        deadline=deadline,
        sticky_key=event.sticky_key,
        version=event.version or 0,
        source=Source.KAFKA,
    )


def answered(envelope: Envelope[InferenceRequested], answer: Answer) -> InferenceCompleted:
    return InferenceCompleted(
        request=request_of(envelope),
        deployment=answer.deployment,
        model=answer.model,
        version=answer.version,
        task=answer.task.name,
        tokens=answer.tokens,
        **answer.task.completed(answer.result()),
    )


def refused(envelope: Envelope[InferenceRequested], error: MillraceError) -> InferenceCompleted:
    return InferenceCompleted(
        request=request_of(envelope),
        deployment=envelope.event.deployment,
        task=envelope.event.task,
        failure=RequestFailure.of(error),
    )


def reply_to(
    envelope: Envelope[InferenceRequested], event: InferenceCompleted, *, at: datetime, trace: Mapping[str, str]
) -> Envelope[InferenceCompleted]:
    """Under the key of the request's record, in the request's story; caused by the request."""
    return Envelope(
        id=answer_id(envelope),
        event=event,
        source=SOURCE,
        time=at,
        tenant=envelope.tenant,
        causation=envelope.id,
        correlation=envelope.correlation_id,
        trace=trace,
        key=envelope.key,
    )
