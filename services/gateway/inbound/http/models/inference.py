"""The wire models of `millrace/v1/inference.proto`, generated: change the .proto, and run `make contracts`."""

from typing import Annotated

from pydantic import ConfigDict, Field

from services.gateway.inbound.http.wire_model import (
    NOT_EMPTY,
    Absent,
    BodyModel,
    ResponseModel,
    Text,
    UInt32,
)


class ClassifyRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "texts": ["Return a new path with the suffix changed.", "Sort the rows of a table by one column."],
                    "sticky_key": "user-17",
                }
            ]
        }
    )
    texts: Annotated[list[Text], NOT_EMPTY] = Field(
        examples=[["Return a new path with the suffix changed.", "Sort the rows of a table by one column."]]
    )
    request_id: Text | None = Field(
        default=None,
        description=("Made by the gateway when empty. Feedback refers to it."),
        examples=["req-01k9rmb3x5c7v9b1n2m4a6s8d0"],
    )
    sticky_key: Text | None = Field(
        default=None,
        description=("Requests with one key go to one version while its weight lasts."),
        examples=["user-17"],
    )
    version: UInt32 | None = Field(
        default=None,
        description=("Which of the served versions answers; 0 leaves it to the deployment's routing."),
        examples=[3],
    )
    with_embeddings: bool | None = Field(
        default=None, description=("Answer with the texts' embeddings too."), examples=[False]
    )
    whole_texts: bool | None = Field(
        default=None,
        description=("Refuse a text that is longer than the model reads, instead of reading its beginning."),
        examples=[True],
    )


class EmbedRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "texts": ["Return a new path with the suffix changed.", "Sort the rows of a table by one column."],
                    "whole_texts": True,
                }
            ]
        }
    )
    texts: Annotated[list[Text], NOT_EMPTY] = Field(
        examples=[["Return a new path with the suffix changed.", "Sort the rows of a table by one column."]]
    )
    request_id: Text | None = Field(
        default=None, description=("Made by the gateway when empty."), examples=["req-01k9rmb3x5c7v9b1n2m4a6s8d0"]
    )
    sticky_key: Text | None = Field(default=None, examples=["user-17"])
    version: UInt32 | None = Field(default=None, examples=[3])
    whole_texts: bool | None = Field(default=None, examples=[True])


class Embedding(ResponseModel):
    """The mean over the text's tokens, of unit length."""

    values: list[float] = Field(examples=[[0.0312, -0.0571, 0.0844]])


class EmbedResponse(ResponseModel):
    request_id: str = Field(examples=["req-01k9rmb3x5c7v9b1n2m4a6s8d0"])
    deployment: str = Field(examples=["topics"])
    model: str = Field(examples=["topics"])
    version: UInt32 = Field(examples=[3])
    embeddings: list[Embedding]
    tokens: UInt32 = Field(examples=[22])


class LabelScore(ResponseModel):
    label: str = Field(examples=["files"])
    score: float = Field(examples=[0.93])


class Prediction(ResponseModel):
    label: str = Field(examples=["files"])
    score: float = Field(examples=[0.93])
    scores: list[LabelScore]


class ClassifyResponse(ResponseModel):
    request_id: str = Field(examples=["req-01k9rmb3x5c7v9b1n2m4a6s8d0"])
    deployment: str = Field(examples=["topics"])
    model: str = Field(examples=["topics"])
    version: UInt32 = Field(examples=[3])
    predictions: list[Prediction]
    tokens: UInt32 = Field(examples=[22])
    embeddings: list[Embedding] | Absent = Field(default=None, description=("One a text, where they were asked for."))
