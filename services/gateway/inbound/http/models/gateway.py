"""The wire models of `millrace/v1/gateway.proto`, generated: change the .proto, and run `make contracts`."""

from typing import Annotated

from pydantic import ConfigDict, Field

from services.gateway.inbound.http.wire_model import (
    NOT_EMPTY,
    BodyModel,
    QueryModel,
    QueryUInt32,
    ResponseModel,
    Text,
    Timestamp,
    UInt32,
)


class AnnounceDatasetRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset": "docstrings-2026-11",
                    "uri": "file:///var/lib/millrace/datasets/docstrings.jsonl",
                    "model": "topics",
                    "recipe_json": '{"epochs":2,"max_length":128}',
                    "content_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                }
            ]
        }
    )
    dataset: Annotated[Text, NOT_EMPTY] = Field(examples=["docstrings-2026-11"])
    uri: Annotated[Text, NOT_EMPTY] = Field(examples=["file:///var/lib/millrace/datasets/docstrings.jsonl"])
    format: Text | None = Field(default=None, description=("jsonl (the default) or csv"), examples=["jsonl"])
    model: Annotated[Text, NOT_EMPTY] = Field(examples=["topics"])
    text_column: Text | None = Field(default=None, examples=["text"])
    label_column: Text | None = Field(default=None, examples=["label"])
    split_column: Text | None = Field(default=None, examples=["split"])
    group_column: Text | None = Field(default=None, examples=["module"])
    recipe_json: Text | None = Field(
        default=None,
        description=("A `Recipe` as JSON; unset fields take the measured defaults."),
        examples=['{"epochs":2,"max_length":128}'],
    )
    hold_back: bool | None = Field(
        default=None, description=("Train and judge, but do not roll out."), examples=[False]
    )
    content_hash: Text | None = Field(
        default=None,
        description=(
            "SHA-256 of the file's bytes, in hexadecimal; a run that finds another file fails with `content_changed`."
        ),
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )


class SendFeedbackRequest(BodyModel):
    """What somebody says of one item of an answer: exactly one of label, rating, score and reference. The latest by its
    own time counts."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"request_id": "req-01k9rmb3x5c7v9b1n2m4a6s8d0", "label": "files"}]}
    )
    request_id: Annotated[Text, NOT_EMPTY] = Field(
        description=("Of a request with several texts, `request_id:1` names its second one, as `item` does."),
        examples=["req-01k9rmb3x5c7v9b1n2m4a6s8d0"],
    )
    label: Text | None = Field(default=None, description=("The right label."), examples=["files"])
    item: UInt32 | None = Field(
        default=None, description=("Which of the request's items, counted from 0."), examples=[0]
    )
    rating: UInt32 | None = Field(default=None, description=("1, useless, to 5, as good as can be."), examples=[4])
    score: float | None = Field(default=None, description=("0, wrong, to 1, right."), examples=[0.93])
    reference: Text | None = Field(default=None, description=("The right answer, as text."), examples=["files"])
    given_at: Timestamp | None = Field(
        default=None, description=("When it was said; when it arrived, if unset."), examples=["2026-11-03T12:21:00Z"]
    )


class Accepted(ResponseModel):
    """It is on disk and will have its effect once."""

    event_id: str = Field(examples=["evt-01k9rm4z7q8w2e5t6y3v0x1c9b"])
    trace_id: str = Field(examples=["4bf92f3577b34da6a3ce929d0e0e4736"])


class UploadQuery(QueryModel):
    """What is about to come. What is announced here must hold, or the upload is refused."""

    format: Text = Field(default_factory=str, description=("jsonl (the default) or csv"), examples=["jsonl"])
    size_bytes: QueryUInt32 = Field(default_factory=int, description=("0 where it is not known"), examples=[48213])
    sha256: Text = Field(
        default_factory=str,
        description=("empty where it is not known"),
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )


class UploadedDataset(ResponseModel):
    """The content is on disk, under its own hash."""

    dataset: str = Field(examples=["docstrings-2026-11"])
    format: str = Field(examples=["jsonl"])
    uri: str = Field(examples=["file:///var/lib/millrace/datasets/docstrings.jsonl"])
    content_hash: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    size_bytes: UInt32 = Field(examples=[48213])
    already_there: bool = Field(examples=[False])
