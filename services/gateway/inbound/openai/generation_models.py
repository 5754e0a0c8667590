"""The wire models of OpenAI's completions, as openai-python 2.54 types them, as far as they are built."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.contracts.tasks.generation_request import MAX_CHOICES, MAX_MESSAGES, MAX_STOPS, MAX_TOP_LOGPROBS
from services.gateway.domain.requests import MAX_STICKY_KEY_CHARS
from services.gateway.inbound.openai.generation_requests import COMPLETION_TOKENS, MAX_LOGPROBS

_CREATED: Final = 1_795_806_000
_CHAT: Final[list[Any]] = [
    {
        "model": "summaries",
        "messages": [
            {"role": "system", "content": "You write the one-line summary of a Python function or class."},
            {"role": "user", "content": "Name: Path.with_suffix\nDescription: Return a new path with another suffix."},
        ],
        "max_completion_tokens": 40,
        "temperature": 0,
    }
]
_TEXT: Final[list[Any]] = [{"model": "summaries@3", "prompt": "def fibonacci(n):", "max_tokens": 60, "seed": 7}]


_USAGE: Final[dict[str, Any]] = {
    "prompt_tokens": 46,
    "completion_tokens": 12,
    "total_tokens": 58,
    "prompt_tokens_details": {"cached_tokens": 32},
}
_CHAT_COMPLETION: Final[dict[str, Any]] = {
    "id": "chatcmpl-req-01k5x3",
    "object": "chat.completion",
    "created": _CREATED,
    "model": "summaries@3",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Return a new path with another suffix.", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": _USAGE,
}
_COMPLETION: Final[dict[str, Any]] = {
    "id": "cmpl-req-01k5x3",
    "object": "text_completion",
    "created": _CREATED,
    "model": "summaries@3",
    "choices": [{"index": 0, "text": " ->", "finish_reason": "length", "logprobs": None}],
    "usage": _USAGE,
}


class OpenAITextPart(BaseModel):
    type: Literal["text"]
    text: str


class OpenAIMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[OpenAITextPart] = Field(examples=["Hello"])
    name: str | None = None


class OpenAIStreamOptions(BaseModel):
    include_usage: bool | None = Field(default=False, description="a last chunk with the usage")


class _Request(BaseModel):
    """What both requests have."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="a deployment, or `deployment@version`", examples=["summaries"])
    n: int | None = Field(default=1, ge=1, le=MAX_CHOICES)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = False
    stream_options: OpenAIStreamOptions | None = Field(default=None, description="with `stream` alone")
    seed: int | None = Field(default=None, ge=0, description="the same seed gives the same answer")
    user: str | None = Field(
        default=None, max_length=MAX_STICKY_KEY_CHARS, description="one user stays with one version"
    )
    temperature: float | None = Field(default=1, ge=0, le=2)
    top_p: float | None = Field(default=1, gt=0, le=1)
    frequency_penalty: float | None = Field(default=0, ge=-2, le=2)
    presence_penalty: float | None = Field(default=0, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(default=None, description="by token id, -100 to 100")
    top_k: int | None = Field(default=0, ge=0, description="an extension, sent in `extra_body`")
    min_p: float | None = Field(default=0, ge=0, le=1, description="an extension, sent in `extra_body`")
    repetition_penalty: float | None = Field(default=1, ge=0.1, le=10, description="an extension, sent in `extra_body`")


class OpenAIChatRequest(_Request):
    """Tools, structured outputs, images and audio are refused by their names."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _CHAT})

    messages: Annotated[list[OpenAIMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = Field(default=None, ge=0, description="0: as many as the context holds")
    max_tokens: int | None = Field(default=None, ge=0, description="the former name of max_completion_tokens")
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS, description="with `logprobs` alone")


class OpenAICompletionRequest(_Request):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _TEXT})

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=64)] = Field(
        description="texts, not token ids", examples=["def fibonacci(n):"]
    )
    max_tokens: int | None = Field(default=COMPLETION_TOKENS, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)


class OpenAITopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class OpenAITokenLogprob(OpenAITopLogprob):
    top_logprobs: list[OpenAITopLogprob]


class OpenAIChoiceLogprobs(BaseModel):
    content: list[OpenAITokenLogprob] | None
    of_refusal: list[OpenAITokenLogprob] | None = Field(default=None, alias="refusal")


class OpenAIChatMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None = Field(examples=["Return a new path with another suffix."])
    why_refused: str | None = Field(default=None, alias="refusal")


class OpenAIChatChoice(BaseModel):
    index: int = Field(ge=0)
    message: OpenAIChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: OpenAIChoiceLogprobs | None = None


class OpenAIPromptDetails(BaseModel):
    cached_tokens: int = Field(ge=0, description="computed for an earlier prompt that begins the same")


class OpenAICompletionUsage(BaseModel):
    prompt_tokens: int = Field(ge=0, examples=[46])
    completion_tokens: int = Field(ge=0, examples=[12])
    total_tokens: int = Field(ge=0, examples=[58])
    prompt_tokens_details: OpenAIPromptDetails


class OpenAIChatCompletion(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_CHAT_COMPLETION]})

    id: str = Field(examples=["chatcmpl-req-01k5x3"])
    object: Literal["chat.completion"]
    created: int = Field(ge=0, examples=[_CREATED])
    model: str = Field(description="the version that answered, as `deployment@version`", examples=["summaries@3"])
    choices: list[OpenAIChatChoice]
    usage: OpenAICompletionUsage


class OpenAICompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class OpenAICompletionChoice(BaseModel):
    index: int = Field(ge=0)
    text: str = Field(examples=["\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)"])
    finish_reason: Literal["stop", "length"]
    logprobs: OpenAICompletionLogprobs | None = None


class OpenAICompletion(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_COMPLETION]})

    id: str = Field(examples=["cmpl-req-01k5x3"])
    object: Literal["text_completion"]
    created: int = Field(ge=0, examples=[_CREATED])
    model: str = Field(description="the version that answered, as `deployment@version`", examples=["summaries@3"])
    choices: list[OpenAICompletionChoice]
    usage: OpenAICompletionUsage
