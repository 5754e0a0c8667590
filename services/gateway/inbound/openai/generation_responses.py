"""Generated answers as OpenAI's clients know them: whole, and as the chunks of a stream.

Source: the API reference of OpenAI, "The chat completion object", "The chat completion chunk object" and "The
completion object", as openai-python 2.54 types them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.contracts.tasks.generation import Choice, GenerationChunk, GenerationResult, TokenLogprob


@dataclass(slots=True)
class CompletionWriter:
    """Of one request. `created` is in Unix seconds; `model` is as the client named it until the version is known."""

    request_id: str
    created: int
    model: str
    is_chat: bool
    include_usage: bool
    with_logprobs: bool
    _begun: set[int] = field(default_factory=set)
    _offsets: dict[int, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.request_id}"

    def response(self, result: GenerationResult) -> dict[str, Any]:
        """The answer in one piece."""
        return self._object("chat.completion", [self._choice(one) for one in result.choices]) | {"usage": usage(result)}

    def chunks(self, chunk: GenerationChunk) -> Iterator[dict[str, Any]]:
        """The first part of an answer names the role, and the last one holds nothing but why it ended."""
        if self.is_chat:
            yield from self._chat_chunks(chunk)
        else:
            yield self._chunk(
                {
                    "index": chunk.index,
                    "text": chunk.text,
                    "logprobs": self._completion_logprobs(chunk.index, chunk.logprobs),
                    "finish_reason": chunk.finish_reason,
                }
            )

    def usage_chunk(self, result: GenerationResult) -> dict[str, Any]:
        return self._object("chat.completion.chunk", []) | {"usage": usage(result)}

    def _chat_chunks(self, chunk: GenerationChunk) -> Iterator[dict[str, Any]]:
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            yield self._chunk(self._delta(chunk.index, {"role": "assistant", "content": "", "refusal": None}))
        if chunk.text or chunk.logprobs:
            yield self._chunk(self._delta(chunk.index, {"content": chunk.text}, chunk.logprobs))
        if chunk.finish_reason is not None:
            yield self._chunk(self._delta(chunk.index, {}) | {"finish_reason": chunk.finish_reason})

    def _delta(self, index: int, delta: dict[str, Any], logprobs: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
        shown = {"content": [_chat_logprob(one) for one in logprobs], "refusal": None} if logprobs else None
        return {"index": index, "delta": delta, "logprobs": shown, "finish_reason": None}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._object("chat.completion.chunk", [choice]) | ({"usage": None} if self.include_usage else {})

    def _choice(self, choice: Choice) -> dict[str, Any]:
        shown: dict[str, Any] = {"index": choice.index, "finish_reason": choice.finish_reason}
        if not self.is_chat:
            return shown | {"text": choice.text, "logprobs": self._completion_logprobs(choice.index, choice.logprobs)}
        logprobs = {"content": [_chat_logprob(one) for one in choice.logprobs], "refusal": None}
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return shown | {"message": message, "logprobs": logprobs if self.with_logprobs else None}

    def _completion_logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.with_logprobs:
            return None
        tokens, offset = [_text(one) for one in logprobs], self._offsets.get(index, 0)
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token)
        self._offsets[index] = offset
        return {
            "tokens": tokens,
            "token_logprobs": [one.logprob for one in logprobs],
            "top_logprobs": [{_text(other): other.logprob for other in one.top} for one in logprobs],
            "text_offset": offsets,
        }

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        name = kind if self.is_chat else "text_completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.model, "choices": choices}


def usage(result: GenerationResult) -> dict[str, Any]:
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "total_tokens": result.prompt_tokens + result.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": result.cached_tokens},
    }


def _chat_logprob(one: TokenLogprob) -> dict[str, Any]:
    top = [{"token": _text(other), "logprob": other.logprob, "bytes": list(other.token)} for other in one.top]
    return {"token": _text(one), "logprob": one.logprob, "bytes": list(one.token), "top_logprobs": top}


def _text(one: TokenLogprob) -> str:
    return one.token.decode("utf-8", "replace")
