"""Between the messages and JSON objects of every protocol and what the handlers know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson
from pydantic import ValidationError

from services.contracts.errors import BadField, Malformed
from services.contracts.events import DatasetReady, FeedbackReceived
from services.contracts.rpc import gateway_pb2, generation_pb2
from services.contracts.rpc import inference_pb2 as pb
from services.contracts.rpc.replica_pb2 import GenerateEventFrame, StreamRequestFrame, StreamResponseFrame
from services.contracts.tasks import CLASSIFICATION, EMBEDDING, GENERATION, Tasks
from services.contracts.tasks.protobuf import parse
from services.contracts.tasks.registry import AnyTask
from services.contracts.tasks.stream import Delta, PredictEvent
from services.contracts.training import Columns, Recipe
from services.gateway.domain.requests import Accepted, Answer, Predict, bad_field, check_name
from services.gateway.domain.uploads import FORMATS, NewContent, Uploaded
from services.kit.core.ids import Ids
from services.kit.transport.grpc_requests import read_timestamp

REQUEST_FIELDS: Final = frozenset({"deployment", "request_id", "sticky_key", "version"})
"""Of every JSON request, whatever its task."""
_FEEDBACK_NAMES: Final = {"request": "request_id"}
_COLUMNS: Final = ("text_column", "label_column", "split_column", "group_column")


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


def read_generate(payload: bytes, edge: Edge) -> Predict:
    """Raises Malformed."""
    message = parse(generation_pb2.GenerateRequest, payload)
    return _command(message, GENERATION, GENERATION.from_message(message), payload, edge)


def write_generated(event: PredictEvent) -> GenerateEventFrame:
    if isinstance(event, Delta):
        return GenerateEventFrame(chunk=event.payload)
    return GenerateEventFrame(result=event.payload)


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


def dataset_ready(request: gateway_pb2.AnnounceDatasetRequest) -> DatasetReady:
    """Raises BadField or Malformed, naming the request's field."""
    check_uri(request.uri)
    columns = {name.removesuffix("_column"): getattr(request, name) for name in _COLUMNS if getattr(request, name)}
    try:
        return DatasetReady(
            dataset=request.dataset,
            uri=request.uri,
            format=request.format or "jsonl",
            columns=Columns(**columns),
            model=request.model,
            recipe=_recipe(request.recipe_json),
            deploy=not request.hold_back,
            content_hash=request.content_hash or None,
        )
    except ValidationError as error:
        raise bad_field(error) from error


def upload_header(header: gateway_pb2.UploadHeader) -> NewContent:
    return NewContent(header.dataset, header.format or FORMATS[0], header.size_bytes, header.sha256)


def uploaded(value: Uploaded) -> gateway_pb2.UploadedDataset:
    return gateway_pb2.UploadedDataset(
        dataset=value.dataset,
        format=value.format,
        uri=value.uri,
        content_hash=value.content.sha256,
        size_bytes=value.content.size_bytes,
        already_there=value.already_there,
    )


def feedback_received(request: gateway_pb2.SendFeedbackRequest) -> FeedbackReceived:
    """Raises BadField, naming the request's field."""
    check_name(request.deployment, "deployment")
    try:
        return FeedbackReceived(
            deployment=request.deployment,
            request=request.request_id,
            item=request.item,
            label=request.label or None,
            rating=request.rating if request.HasField("rating") else None,
            score=request.score if request.HasField("score") else None,
            reference=request.reference or None,
            given_at=read_timestamp(request, "given_at"),
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = _FEEDBACK_NAMES.get(str(first["loc"][0]), str(first["loc"][0])) if first["loc"] else "label"
        raise BadField(name=name, problem=first["msg"].removeprefix("Value error, "), field=name) from error


def accepted(value: Accepted) -> gateway_pb2.Accepted:
    return gateway_pb2.Accepted(event_id=value.event_id, trace_id=value.trace_id)


def check_uri(uri: str) -> None:
    """Its shape only: which roots are allowed is the trainer's to say, since it is the one who reads."""
    if not uri.isprintable():
        raise Malformed(problem="it holds control characters", field="uri")
    scheme, separator, path = uri.partition("://")
    if not separator or not scheme.isalnum():
        raise BadField(name="uri", problem="it must be a URL such as file:///data/texts.jsonl", field="uri")
    if ".." in path.replace("\\", "/").split("/"):
        raise BadField(name="uri", problem="it must not contain '..'", field="uri")


def _recipe(text: str) -> Recipe:
    if not text:
        return Recipe()
    try:
        sent: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Malformed(problem="it is not JSON", field="recipe_json") from error
    if not isinstance(sent, dict):
        raise BadField(name="recipe_json", problem="it must be a JSON object", field="recipe_json")
    for name in sent.keys() - Recipe.model_fields.keys():
        at = f"recipe_json.{name}"[:200]
        raise BadField(name=at, problem="there is no such field", field=at)
    try:
        return Recipe.model_validate(sent)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = f"recipe_json.{first['loc'][0]}"
        raise BadField(name=at, problem=first["msg"], field=at) from error


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
