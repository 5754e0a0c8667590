"""The wire models of OpenAI's API, as openai-python 2.54 types them."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.domain.requests import MAX_STICKY_KEY_CHARS
from services.gateway.inbound.openai.embeddings import MAX_INPUTS

_CREATED: Final = 1_793_707_502
_TEXT: Final = "Return a new path with the suffix changed."
_REQUESTS: Final[list[Any]] = [
    {"model": "topics", "input": _TEXT},
    {
        "model": "topics@3",
        "input": [_TEXT, "Sort the rows of a table by one column."],
        "encoding_format": "base64",
        "dimensions": 128,
        "user": "user-17",
    },
]


class OpenAIModel(BaseModel):
    id: str = Field(description="a deployment, or `deployment@version`", examples=["topics@3"])
    object: Literal["model"] = "model"
    created: int = Field(ge=0, examples=[_CREATED])
    owned_by: str = Field(examples=["millrace"])


class OpenAIModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class OpenAIEmbeddingsRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _REQUESTS})

    model: str = Field(description="a deployment, or `deployment@version`", examples=["topics"])
    input: str | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)] = Field(
        description="texts, not token ids; each is read whole or refused", examples=[_TEXT]
    )
    encoding_format: Literal["float", "base64"] | None = Field(default="float", examples=["base64"])
    dimensions: int | None = Field(
        default=None, ge=1, description="keep the first so many values, of unit length again", examples=[128]
    )
    user: str | None = Field(
        default=None,
        max_length=MAX_STICKY_KEY_CHARS,
        description="one user stays with one version",
        examples=["user-17"],
    )


class OpenAIEmbedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int = Field(ge=0, examples=[0])
    embedding: list[float] | str = Field(
        description="numbers, or little-endian float32 in Base64", examples=[[0.0312, -0.0571, 0.0844]]
    )


class OpenAIUsage(BaseModel):
    prompt_tokens: int = Field(ge=0, examples=[22])
    total_tokens: int = Field(ge=0, examples=[22])


class OpenAIEmbeddings(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str = Field(description="the version that answered, as `deployment@version`", examples=["topics@3"])
    usage: OpenAIUsage


class OpenAIErrorBody(BaseModel):
    message: str
    type: Literal["invalid_request_error", "requests", "server_error"]
    param: str | None = Field(description="the offending parameter")
    code: str | None = Field(description="stable, for programs")


class OpenAIError(BaseModel):
    error: OpenAIErrorBody
