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


def request_of(asked: Envelope[InferenceRequested]) -> str:
    """The request's id: the caller's, or one that the event's id always gives."""
    return asked.event.request or f"req-{_digest(asked)}"


def answer_id(asked: Envelope[InferenceRequested]) -> str:
    """The id of the answer's event, the same for every delivery of the request."""
    return f"answer-{_digest(asked)}"


def _digest(asked: Envelope[InferenceRequested]) -> str:
    return hashlib.sha256(f"{asked.tenant}\0{asked.id}".encode()).hexdigest()[:_ID_DIGITS]


def command_of(asked: Envelope[InferenceRequested], task: AnyTask, *, deadline: float) -> Predict:
    """Raises BadField for what the task does not take."""
    event = asked.event
    sent = event.input if event.input is not None else event.model_dump(include=_BESIDE_INPUT)
    return Predict(
        tenant=asked.tenant,
        deployment=event.deployment,
        task=task,
        request=task.read(sent),
        request_id=request_of(asked),
        deadline=deadline,
        sticky_key=event.sticky_key,
        version=event.version or 0,
        source=Source.KAFKA,
    )


def answered(asked: Envelope[InferenceRequested], answer: Answer) -> InferenceCompleted:
    return InferenceCompleted(
        request=request_of(asked),
        deployment=answer.deployment,
        model=answer.model,
        version=answer.version,
        task=answer.task.name,
        tokens=answer.tokens,
        **answer.task.completed(answer.result()),
    )


def refused(asked: Envelope[InferenceRequested], refusal: MillraceError) -> InferenceCompleted:
    return InferenceCompleted(
        request=request_of(asked),
        deployment=asked.event.deployment,
        task=asked.event.task,
        failure=RequestFailure.of(refusal),
    )


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
