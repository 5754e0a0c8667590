"""Between the messages and JSON objects of a request and the one command of every protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from services.contracts.errors import BadField
from services.contracts.rpc import inference_pb2 as pb
from services.contracts.rpc.replica_pb2 import StreamRequestFrame, StreamResponseFrame
from services.contracts.tasks import CLASSIFICATION, EMBEDDING, Tasks
from services.contracts.tasks.protobuf import parse
from services.contracts.tasks.registry import AnyTask
from services.contracts.tasks.stream import Delta, PredictEvent
from services.gateway.domain.requests import Answer, Predict, check_name
from services.kit.core.ids import Ids

REQUEST_FIELDS: Final = frozenset({"deployment", "request_id", "sticky_key", "version"})
"""Of every JSON request, whatever its task."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What a request does not say of itself: for which tenant it is, and how long its client waits."""

    tenant: str
    deadline: float
    ids: Ids


Converter: TypeAlias = Callable[[bytes, Edge], Predict]


def read_classify(payload: bytes, edge: Edge) -> Predict:
    """Raises Malformed or BadField."""
    message = parse(pb.ClassifyRequest, payload)
    for name in ("mirrored", "tenant"):
        if getattr(message, name):
            raise BadField(name=name, problem="it cannot be set by clients", field=name)
    return _command(message, CLASSIFICATION, CLASSIFICATION.from_message(message), payload, edge)


def read_embed(payload: bytes, edge: Edge) -> Predict:
    """Raises Malformed."""
    message = parse(pb.EmbedRequest, payload)
    return _command(message, EMBEDDING, EMBEDDING.from_message(message), payload, edge)


def read_frame(frame: StreamRequestFrame, edge: Edge, tasks: Tasks) -> Predict:
    """Raises UnknownTask, Malformed or BadField."""
    if frame.HasField("predict"):
        task = tasks.named(frame.predict.task)
        return _command(frame.predict, task, task.decode(frame.predict.payload), frame.predict.payload, edge)
    if frame.HasField("embed"):
        return read_embed(frame.embed, edge)
    return read_classify(frame.classify, edge)


def write_event(frame: StreamRequestFrame, command: Predict, event: PredictEvent) -> StreamResponseFrame:
    """In the form that the request had."""
    if isinstance(event, Delta):
        return StreamResponseFrame(id=frame.id, delta=pb.PredictDelta(payload=event.payload))
    if frame.HasField("predict"):
        result = pb.PredictResponse(
            request_id=command.request_id,
            deployment=command.deployment,
            model=event.model,
            version=event.version,
            tokens=event.tokens,
            payload=event.payload,
        )
        return StreamResponseFrame(id=frame.id, result=result)
    if frame.HasField("embed"):
        return StreamResponseFrame(id=frame.id, embedding=event.payload)
    return StreamResponseFrame(id=frame.id, response=event.payload)


def _command(message: Any, task: AnyTask, request: Any, payload: bytes, edge: Edge) -> Predict:
    check_name(message.deployment, "deployment")
    return Predict(
        tenant=edge.tenant,
        deployment=message.deployment,
        task=task,
        request=request,
        request_id=message.request_id or edge.ids.new("req"),
        deadline=edge.deadline,
        payload=payload,
        sticky_key=message.sticky_key,
        version=message.version,
    )


def read_json(sent: Mapping[str, Any], deployment: str, task: AnyTask, edge: Edge) -> Predict:
    """Raises BadField, also for a field that the task does not have."""
    for name in sent:
        if name not in task.fields and name not in REQUEST_FIELDS:
            raise BadField(name=name[:100], problem="there is no such field", field=name[:100])
    if sent.get("deployment", deployment) != deployment:
        raise BadField(name="deployment", problem="the path names another one", field="deployment")
    return Predict(
        tenant=edge.tenant,
        deployment=deployment,
        task=task,
        request=task.read(sent),
        request_id=_text(sent, "request_id") or edge.ids.new("req"),
        deadline=edge.deadline,
        sticky_key=_text(sent, "sticky_key"),
        version=_number(sent, "version"),
    )


def write_json(answer: Answer) -> dict[str, Any]:
    return {
        "request_id": answer.request_id,
        "deployment": answer.deployment,
        "model": answer.model,
        "version": answer.version,
        "tokens": answer.tokens,
        **answer.task.show(answer.result()),
    }


def _text(sent: Mapping[str, Any], name: str) -> str:
    value = sent.get(name) or ""
    if not isinstance(value, str):
        raise BadField(name=name, problem="it must be a string", field=name)
    return value


def _number(sent: Mapping[str, Any], name: str) -> int:
    value = sent.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise BadField(name=name, problem="it must be a whole number from 0 to 4294967295", field=name)
    return value
