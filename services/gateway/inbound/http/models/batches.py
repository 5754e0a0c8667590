"""The wire models of `millrace/v1/batches.proto`, generated: change the .proto, and run `make contracts`."""

from typing import Annotated

from pydantic import ConfigDict, Field

from services.gateway.inbound.http.models.inference import LabelScore
from services.gateway.inbound.http.wire_model import (
    NOT_EMPTY,
    Absent,
    BodyModel,
    PagedQueryModel,
    QueryUInt32,
    ResponseModel,
    Text,
    Timestamp,
    UInt32,
)


class CreateBatchRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "deployment": "topics",
                    "uri": "file:///var/lib/millrace/datasets/reviews-2026-11.jsonl",
                    "text_column": "text",
                }
            ]
        }
    )
    deployment: Annotated[Text, NOT_EMPTY] = Field(examples=["topics"])
    uri: Annotated[Text, NOT_EMPTY] = Field(
        description=("file:// address of a .jsonl or .csv under one of the gateway's data roots."),
        examples=["file:///var/lib/millrace/datasets/docstrings.jsonl"],
    )
    format: Text | None = Field(default=None, description=("jsonl (the default) or csv"), examples=["jsonl"])
    text_column: Text | None = Field(default=None, description=("text, when empty"), examples=["text"])
    version: UInt32 | None = Field(
        default=None,
        description=("Which of the served versions answers; 0 leaves it to the deployment's routing."),
        examples=[3],
    )
    with_embeddings: bool | None = Field(default=None, examples=[False])
    whole_texts: bool | None = Field(
        default=None,
        description=(
            "Take a text that is longer than the model reads as a row that cannot be answered, instead "
            "of reading its beginning."
        ),
        examples=[True],
    )
    task: Text | None = Field(default=None, description=("classification, when empty."), examples=["classification"])
    options_json: Text | None = Field(
        default=None,
        description=("Further fields of the task's request, as a JSON object; unset ones take the task's defaults."),
        examples=["{}"],
    )


class ListBatchesQuery(PagedQueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])
    deployment: Text = Field(default_factory=str, examples=["topics"])
    status: Text = Field(default_factory=str, examples=["running"])


class Batch(ResponseModel):
    batch: str = Field(examples=["batch-01k9rn0c3v5b7n9m1q2w4e6r8t"])
    deployment: str = Field(examples=["topics"])
    uri: str = Field(examples=["file:///var/lib/millrace/datasets/docstrings.jsonl"])
    format: str = Field(examples=["jsonl"])
    text_column: str = Field(examples=["text"])
    version: UInt32 = Field(examples=[3])
    with_embeddings: bool = Field(examples=[False])
    whole_texts: bool = Field(examples=[True])
    status: str = Field(description=("queued, running, succeeded, failed, cancelled"), examples=["succeeded"])
    progress: float = Field(description=("0 to 1 of the file's bytes"), examples=[1.0])
    rows: UInt32 = Field(description=("answered so far, failed ones included"), examples=[500])
    failed_rows: UInt32 = Field(description=("rows whose line in the output is an error"), examples=[3])
    versions: list[UInt32] = Field(examples=[[3]])
    attempt: UInt32 = Field(examples=[1])
    failure_code: str = Field(examples=[""])
    failure_reason: str = Field(examples=[""])
    failure_row: UInt32 = Field(description=("counted from 1; 0 where no row is to blame"), examples=[0])
    output_uri: str = Field(
        examples=["file:///var/lib/millrace/batches/default/batch-01k9rn0c3v5b7n9m1q2w4e6r8t/output.jsonl"]
    )
    manifest_uri: str = Field(
        examples=["file:///var/lib/millrace/batches/default/batch-01k9rn0c3v5b7n9m1q2w4e6r8t/manifest.json"]
    )
    output_sha256: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    created_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:00:01Z"])
    ended_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:04:37Z"])
    trace_id: str = Field(examples=["4bf92f3577b34da6a3ce929d0e0e4736"])
    task: str = Field(examples=["classification"])
    options_json: str = Field(examples=["{}"])


class ListBatchesResponse(ResponseModel):
    batches: list[Batch]
    next_page_token: str = Field(examples=[""])


class CancelBatchRequest(BodyModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the wrong file"}]})
    reason: Text | None = Field(default=None, examples=["better on the new sources"])


class RowError(ResponseModel):
    code: str = Field(examples=["bad_field"])
    message: str = Field(examples=["The field 'texts[0]' is not valid: it is empty."])


class BatchRow(ResponseModel):
    """One line of the output. It has either an answer or an error."""

    row: UInt32 = Field(description=("counted from 1, a header left out"), examples=[17])
    label: str | Absent = Field(default=None, examples=["files"])
    score: float | Absent = Field(default=None, examples=[0.93])
    scores: list[LabelScore] | Absent = Field(default=None)
    version: UInt32 | Absent = Field(default=None, examples=[3])
    embedding: str | Absent = Field(
        default=None, description=("Base64 of little-endian float32, where embeddings were asked for."), examples=[""]
    )
    error: RowError | Absent = Field(default=None)
    answer_json: str | Absent = Field(
        default=None,
        description=("What the line holds of the answer, as a JSON object, whatever the task."),
        examples=['{"label":"files","score":0.93}'],
    )
