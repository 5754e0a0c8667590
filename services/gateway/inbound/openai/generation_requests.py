"""`POST /v1/chat/completions` and `/v1/completions`: OpenAI's requests into ours.

Source: the API reference of OpenAI as openai-python 2.54 types it. What would change the answer and is not built is
refused by its name; what does not change it is passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from services.contracts.errors import BadField, MillraceError
from services.contracts.tasks import GENERATION
from services.contracts.tasks.generation import GenerationRequest
from services.contracts.tasks.generation_json import read_messages, read_options
from services.contracts.tasks.generation_request import BOUNDS, Prompt
from services.contracts.tasks.task import RequestLimits
from services.contracts.tasks.texts import read_flag
from services.gateway.errors import TokensNotText, UnsupportedParameter
from services.gateway.inbound.openai.embeddings import read_model, read_text, read_user

COMPLETION_TOKENS: Final = 16
"""What `/v1/completions` gives where a request sets no limit, by the API's reference."""
MAX_LOGPROBS: Final = 5
"""Of `/v1/completions`."""
_SHARED: Final = frozenset({"model", "n", "stop", "stream", "stream_options", "seed", "user", "logit_bias", "logprobs"})
_EXTENSIONS: Final = frozenset({"top_k", "min_p", "repetition_penalty"})
"""Sent by `extra_body`, as other servers name them."""
_OPTIONS: Final = frozenset({"temperature", "top_p", "frequency_penalty", "presence_penalty"}) | _EXTENSIONS
_WITHOUT_EFFECT: Final = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
CHAT: Final = _SHARED | _OPTIONS | _WITHOUT_EFFECT | {
    "messages", "max_tokens", "max_completion_tokens", "top_logprobs", "parallel_tool_calls", "response_format",
    "tools", "tool_choice", "functions", "function_call", "modalities", "audio", "prediction", "reasoning_effort",
    "verbosity", "web_search_options",
}  # fmt: skip
COMPLETION: Final = _SHARED | _OPTIONS | _WITHOUT_EFFECT | {"prompt", "max_tokens", "suffix", "echo", "best_of"}
_SAME_AS_ABSENT: Final[Mapping[str, tuple[Any, ...]]] = {
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "audio": (), "prediction": (), "reasoning_effort": (), "verbosity": (), "web_search_options": (),
}  # fmt: skip
"""Parameters of what is not built, with the values that ask for nothing."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One request, checked."""

    deployment: str
    version: int
    generation: GenerationRequest
    user: str
    stream: bool
    include_usage: bool
    is_chat: bool
    with_logprobs: bool


def read_chat(sent: Mapping[str, Any]) -> CompletionRequest:
    """Raises BadField, UnsupportedParameter or ModelNotFound, which name the parameter."""
    _check_names(sent, CHAT)
    options = read_options(_numbers(sent))
    with_logprobs = read_flag(sent, "logprobs")
    top = _count(sent, "top_logprobs", 20)
    if top is not None and not with_logprobs:
        raise BadField(name="top_logprobs", problem="it needs 'logprobs'", field="top_logprobs")
    most = _count(sent, "max_completion_tokens")
    generation = replace(
        options,
        inputs=[read_messages(sent.get("messages"))],
        max_tokens=(most if most is not None else _count(sent, "max_tokens")) or 0,
        top_logprobs=(top or 0) if with_logprobs else None,
    )
    return _checked(sent, generation, is_chat=True, with_logprobs=with_logprobs)


def read_completion(sent: Mapping[str, Any]) -> CompletionRequest:
    """Raises BadField, UnsupportedParameter, TokensNotText or ModelNotFound, which name the parameter."""
    _check_names(sent, COMPLETION)
    top = _count(sent, "logprobs", MAX_LOGPROBS)
    most = _count(sent, "max_tokens")
    generation = replace(
        read_options(_numbers(sent)),
        inputs=_prompts(sent.get("prompt")),
        max_tokens=COMPLETION_TOKENS if most is None else most,
        top_logprobs=top,
    )
    return _checked(sent, generation, is_chat=False, with_logprobs=top is not None)


def _checked(
    sent: Mapping[str, Any], generation: GenerationRequest, *, is_chat: bool, with_logprobs: bool
) -> CompletionRequest:
    model = read_text(sent, "model")
    if not model:
        raise BadField(name="model", problem="it is required", field="model")
    deployment, version = read_model(model)
    stream, options = read_flag(sent, "stream"), sent.get("stream_options")
    if options is not None and (not stream or not isinstance(options, dict)):
        raise BadField(name="stream_options", problem="it is an object, and needs 'stream'", field="stream_options")
    try:
        GENERATION.check(generation, RequestLimits())
    except MillraceError as error:
        raise renamed(error, is_chat=is_chat) from error
    return CompletionRequest(
        deployment=deployment,
        version=version,
        generation=generation,
        user=read_user(sent),
        stream=stream,
        include_usage=read_flag(options or {}, "include_usage"),
        is_chat=is_chat,
        with_logprobs=with_logprobs,
    )


def renamed(error: MillraceError, *, is_chat: bool) -> MillraceError:
    """The same error, with its field as this API names it."""
    field = error.field or ""
    if field == "choices":
        error.field = "n"
    elif is_chat and field.startswith("inputs[0]"):
        error.field = field.removeprefix("inputs[0]").removeprefix(".") or "messages"
    elif field.startswith("inputs"):
        error.field = "prompt"
    return error


def _check_names(sent: Mapping[str, Any], known: frozenset[str]) -> None:
    for name, value in sent.items():
        if name not in known:
            raise BadField(name=name[:100], problem="there is no such parameter", field=name[:100])
        same = _SAME_AS_ABSENT.get(name)
        if same is not None and value is not None and value not in same:
            raise UnsupportedParameter(name=name, field=name)


def _numbers(sent: Mapping[str, Any]) -> dict[str, Any]:
    """What has the same name and meaning here and there."""
    return {name: sent.get(name) for name in (*BOUNDS, "n", "stop", "seed", "logit_bias", "top_k")}


def _count(sent: Mapping[str, Any], name: str, most: int = 1_000_000) -> int | None:
    value = sent.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise BadField(name=name, problem=f"it must be a whole number from 0 to {most}", field=name)
    return value


def _prompts(sent: object) -> list[Prompt]:
    prompts = [sent] if isinstance(sent, str) else sent
    if not isinstance(prompts, list) or not prompts:
        raise BadField(name="prompt", problem="send a string or a list of strings", field="prompt")
    if any(isinstance(prompt, int | list) and not isinstance(prompt, bool) for prompt in prompts):
        raise TokensNotText(field="prompt")
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise BadField(name="prompt", problem="send a string or a list of strings", field="prompt")
    return list(prompts)
