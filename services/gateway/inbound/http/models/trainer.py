"""The wire models of `millrace/v1/trainer.proto`, generated: change the .proto, and run `make contracts`."""

from typing import Annotated

from pydantic import ConfigDict, Field

from services.gateway.inbound.http.models.fragments import Artifact, SliceScore, Variant
from services.gateway.inbound.http.wire_model import (
    NOT_EMPTY,
    Absent,
    BodyModel,
    PagedQueryModel,
    QueryBool,
    QueryModel,
    QueryUInt32,
    ResponseModel,
    Text,
    Timestamp,
    UInt32,
)


class ListDatasetsQuery(PagedQueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])


class DatasetVersion(ResponseModel):
    """One content that a data set has had."""

    dataset: str = Field(examples=["docstrings-2026-11"])
    content_hash: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    uri: str = Field(examples=["file:///var/lib/millrace/datasets/docstrings.jsonl"])
    format: str = Field(examples=["jsonl"])
    model: str = Field(examples=["topics"])
    size_bytes: UInt32 = Field(description=("0 before a run has read it"), examples=[48213])
    rows: UInt32 = Field(description=("0 before a run has read it"), examples=[500])
    announced_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:00:00Z"])
    latest_run: str = Field(examples=["run-01k9rm50a1s2d3f4g5h6j7k8m9"])


class Dataset(ResponseModel):
    name: str = Field(examples=["topics"])
    uri: str = Field(examples=["file:///var/lib/millrace/datasets/docstrings.jsonl"])
    format: str = Field(examples=["jsonl"])
    model: str = Field(examples=["topics"])
    announced_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:00:00Z"])
    latest_run: str = Field(examples=["run-01k9rm50a1s2d3f4g5h6j7k8m9"])
    content_hash: str = Field(
        description=("SHA-256 of the file's bytes: as announced, or as the first run found it; empty before that."),
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    version: DatasetVersion | Absent = Field(
        default=None, description=("The version of that content; not in listings.")
    )


class ListDatasetsResponse(ResponseModel):
    datasets: list[Dataset]
    next_page_token: str = Field(examples=[""])


class ListDatasetVersionsQuery(PagedQueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])


class ListDatasetVersionsResponse(ResponseModel):
    versions: list[DatasetVersion]
    next_page_token: str = Field(examples=[""])


class ListRunsQuery(PagedQueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])
    model: Text = Field(default_factory=str, examples=["topics"])
    status: Text = Field(default_factory=str, examples=["succeeded"])
    dataset: Text = Field(default_factory=str, examples=["docstrings-2026-11"])
    since: Timestamp = Field(
        default_factory=str, description=("created then or later"), examples=["2026-11-03T00:00:00Z"]
    )


class Run(ResponseModel):
    run: str = Field(examples=["run-01k9rm50a1s2d3f4g5h6j7k8m9"])
    model: str = Field(examples=["topics"])
    dataset: str = Field(examples=["docstrings-2026-11"])
    status: str = Field(
        description=("queued, preparing, training, evaluating, exporting, succeeded, failed, cancelled"),
        examples=["succeeded"],
    )
    cause: str = Field(examples=["dataset.ready docstrings-2026-11"])
    progress: float = Field(description=("0 to 1 within the stage"), examples=[1.0])
    attempt: UInt32 = Field(examples=[1])
    failure_code: str = Field(examples=[""])
    failure_reason: str = Field(examples=[""])
    artifact: Artifact | Absent = Field(default=None)
    slices: list[SliceScore]
    tfidf_macro_f1: float = Field(examples=[0.772])
    variants: list[Variant]
    created_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:00:01Z"])
    ended_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:04:37Z"])
    trace_id: str = Field(examples=["4bf92f3577b34da6a3ce929d0e0e4736"])
    recipe_json: str = Field(examples=['{"epochs":2,"max_length":128}'])
    data_hash: str = Field(
        description=("SHA-256 of the prepared rows; empty before the run has succeeded"),
        examples=["80a00f0b51c6d51dc228b0b2b1f4fb3a510da55c0aaef2a956d7c488180d68f9"],
    )
    content_hash: str = Field(
        description=("SHA-256 of the file's bytes: as announced, or as the run found it"),
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    started_by: str = Field(
        description=("Who asked for the run and why; who cancelled it and why."), examples=["trainer"]
    )
    start_reason: str = Field(examples=["the data set docstrings-2026-11 is ready"])
    cancelled_by: str = Field(examples=[""])
    cancel_reason: str = Field(examples=[""])
    hold_back: bool = Field(examples=[False])
    failure_field: str = Field(
        description=(
            "What to change, of the recipe or a setting, and what to do about it; empty where nothing is known to help."
        ),
        examples=[""],
    )
    failure_hint: str = Field(examples=[""])


class ListRunsResponse(ResponseModel):
    runs: list[Run]
    next_page_token: str = Field(examples=[""])


class StartRunRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset": "docstrings-2026-11",
                    "content_hash": "9f86d081884c",
                    "reason": "compare with the first data",
                }
            ]
        }
    )
    dataset: Annotated[Text, NOT_EMPTY] = Field(examples=["docstrings-2026-11"])
    content_hash: Text | None = Field(
        default=None,
        description=(
            "At least the first 8 digits of an earlier version's; empty: the data set as it was last announced."
        ),
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    model: Text | None = Field(default=None, description=("empty: the one it was announced for"), examples=["topics"])
    recipe_json: Text | None = Field(
        default=None,
        description=("A `Recipe` as JSON; unset fields are those of the announcement."),
        examples=['{"epochs":2,"max_length":128}'],
    )
    hold_back: bool | None = Field(
        default=None, description=("Train and judge, but do not roll out."), examples=[False]
    )
    reason: Text | None = Field(default=None, examples=["better on the new sources"])


class CancelRunRequest(BodyModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "wrong data set"}]})
    reason: Text | None = Field(default=None, examples=["better on the new sources"])


class GetRunLogsQuery(QueryModel):
    after_line: QueryUInt32 = Field(default_factory=int, examples=[0])
    follow: QueryBool = Field(default_factory=bool, examples=[False])


class RunLogLine(ResponseModel):
    number: UInt32 = Field(examples=[17])
    text: str = Field(examples=["epoch 2 of 2: loss 0.412"])
