"""What `POST /api/v1/deployments/{deployment}/generate` takes and answers, for the document alone: the task reads and
writes its JSON itself (`services/contracts/tasks/generation_json.py`)."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.contracts.tasks.generation_request import (
    MAX_BIAS,
    MAX_CHOICES,
    MAX_MESSAGES,
    MAX_STOPS,
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
)

_MESSAGES: Final[list[Any]] = [
    {"role": "system", "content": "You write the one-line summary of a Python function or class."},
    {"role": "user", "content": "Name: Path.with_suffix\nDescription: Return a new path with the suffix changed."},
]
_EXAMPLES: Final[list[Any]] = [
    {"messages": _MESSAGES, "max_tokens": 40, "temperature": 0},
    {"prompt": "def fibonacci(n):", "max_tokens": 60, "seed": 7, "stop": ["\n\n"]},
]


_RESULT: Final[dict[str, Any]] = {
    "request_id": "req-01k5x3",
    "deployment": "summaries",
    "model": "summaries",
    "version": 3,
    "tokens": 58,
    "choices": [{"index": 0, "text": "Return a new path with another suffix.", "finish_reason": "stop"}],
    "prompt_tokens": 46,
    "completion_tokens": 12,
    "cached_tokens": 32,
}


class GenerateMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str = Field(examples=["Hello"])
    name: str | None = None


class GenerateBody(BaseModel):
    """Either `messages` or `prompt`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _EXAMPLES})

    messages: Annotated[list[GenerateMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = Field(
        default=None, description="a conversation, rendered by the model's own template"
    )
    prompt: str | list[str] | None = Field(default=None, description="texts that are continued as they stand")
    max_tokens: int | None = Field(
        default=None, ge=0, le=MAX_TOKENS, description="of one answer; 0: as many as context and replica allow"
    )
    n: int | None = Field(default=1, ge=1, le=MAX_CHOICES, description="answers to each input")
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = Field(
        default=None, description="an answer ends before the first of these texts"
    )
    temperature: float | None = Field(default=1, ge=0, le=2, description="0 takes the likeliest token")
    top_p: float | None = Field(default=1, gt=0, le=1)
    top_k: int | None = Field(default=0, ge=0, description="0: all")
    min_p: float | None = Field(default=0, ge=0, le=1)
    frequency_penalty: float | None = Field(default=0, ge=-2, le=2)
    presence_penalty: float | None = Field(default=0, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=1, ge=0.1, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]] | None = Field(
        default=None, description="by token id"
    )
    seed: int | None = Field(default=None, ge=0, description="the same seed gives the same answer")
    top_logprobs: int | None = Field(
        default=None, ge=0, le=MAX_TOP_LOGPROBS, description="give log probabilities, and so many alternatives"
    )
    request_id: str | None = Field(default=None, description="made when empty; feedback refers to it")
    sticky_key: str | None = Field(default=None, description="requests with one key go to one version")
    version: int | None = Field(default=None, ge=0, description="which of the served versions answers")


class GenerateLogprob(BaseModel):
    token: str
    bytes: list[int]
    logprob: float
    top: list["GenerateLogprob"] = Field(default_factory=list)


class GenerateChoice(BaseModel):
    index: int = Field(ge=0)
    text: str = Field(examples=["Return a new path with a different suffix."])
    finish_reason: Literal["stop", "length"]
    logprobs: list[GenerateLogprob] = Field(default_factory=list, description="where they were asked for")


class GenerateResult(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_RESULT]})

    request_id: str = Field(examples=["req-01k5x3"])
    deployment: str = Field(examples=["summaries"])
    model: str = Field(examples=["summaries"])
    version: int = Field(ge=1, examples=[3])
    tokens: int = Field(ge=0, description="of prompts and answers", examples=[58])
    choices: list[GenerateChoice] = Field(description="to the first input, then to the second, ...")
    prompt_tokens: int = Field(ge=0, examples=[46])
    completion_tokens: int = Field(ge=0, examples=[12])
    cached_tokens: int = Field(ge=0, description="of the prompt's, those that had been computed before", examples=[32])
