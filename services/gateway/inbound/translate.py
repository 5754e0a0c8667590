"""Between protobuf messages and what the handlers know; the same for REST and gRPC."""

from typing import Any, Final

import orjson
from pydantic import ValidationError

from services.contracts.errors import BadField, Malformed
from services.contracts.events import DatasetReady, FeedbackReceived
from services.contracts.rpc import gateway_pb2
from services.contracts.training import Columns, Recipe
from services.gateway.domain.requests import Accepted, bad_field, check_name
from services.gateway.domain.uploads import FORMATS, NewContent, Uploaded
from services.kit.transport.grpc_requests import read_timestamp

_FEEDBACK_NAMES: Final = {"request": "request_id"}
_COLUMNS: Final = ("text_column", "label_column", "split_column", "group_column")


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
