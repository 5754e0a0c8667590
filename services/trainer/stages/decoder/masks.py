"""Which tokens of a conversation are learned: the answer's and the one that ends its turn, never the prompt's.

A prompt is rendered and tokenised as it is when the model is served; its tokens have to begin those of the whole
conversation. What follows them is the answer, up to the last special token: the end of the turn. White space that a
template writes after that end is never generated, and so not learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.kit.core.tabular import BadRow
from services.trainer.errors import EndlessTurns, PromptIsNoPrefix
from services.trainer.stages.decoder.conversations import ChatMessage, Conversation

IGNORED: Final = -100
"""The label of a token that is not learned: `ignore_index` of torch's cross entropy."""


@dataclass(frozen=True)
class Example:
    """Token ids of a conversation up to its end; those before `prompt_tokens` are not learned."""

    number: int
    ids: tuple[int, ...]
    prompt_tokens: int
    truncated: bool = False

    @property
    def labels(self) -> list[int]:
        return [IGNORED] * self.prompt_tokens + list(self.ids[self.prompt_tokens :])


@dataclass(frozen=True)
class Lengths:
    """What became of the rows at a bound in tokens."""

    rows: int
    truncated: int
    """Rows whose answer was cut; its end is not learned from them."""
    dropped: int
    """Rows whose prompt alone reaches the bound."""
    prompt_tokens: int
    completion_tokens: int


class Masker:
    """Makes examples by a tokenizer of transformers, with its chat template where it has one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = {int(token) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        if tokenizer.eos_token_id is not None:
            self._special.add(int(tokenizer.eos_token_id))

    def example(self, row: Conversation) -> Example:
        """Raises PromptIsNoPrefix, EndlessTurns, or BadRow where the template refuses the row's messages."""
        prompt, ids = self._ids(row) if self._tokenizer.chat_template else self._plain_ids(row)
        if ids[: len(prompt)] != prompt or len(ids) == len(prompt):
            raise PromptIsNoPrefix(row=row.number)
        end = next((index for index in reversed(range(len(prompt), len(ids))) if ids[index] in self._special), None)
        if end is None or end == len(prompt):
            raise EndlessTurns(row=row.number)
        return Example(row.number, tuple(ids[: end + 1]), len(prompt))

    def _ids(self, row: Conversation) -> tuple[list[int], list[int]]:
        prompt = self._render(row, row.prompt, ready=True)
        text = self._render(row, (*row.prompt, ChatMessage("assistant", row.completion)), ready=False)
        if not text.startswith(prompt):
            raise PromptIsNoPrefix(row=row.number)
        return self._encode(prompt, special=False), self._encode(text, special=False)

    def _plain_ids(self, row: Conversation) -> tuple[list[int], list[int]]:
        """Of a model without a template: the text, the answer right after it, and the end of texts."""
        if len(row.prompt) != 1:
            raise BadRow(row=row.number, problem="the model has no chat template for messages")
        text = row.prompt[0].content
        if self._tokenizer.eos_token_id is None:
            raise EndlessTurns(row=row.number)
        ids = self._encode(f"{text} {row.completion}", special=True)
        return self._encode(text, special=True), [*ids, int(self._tokenizer.eos_token_id)]

    def _render(self, row: Conversation, conversation: Sequence[ChatMessage], *, ready: bool) -> str:
        messages = [{"role": message.role, "content": message.content} for message in conversation]
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ready))
        except Exception as error:  # a template is a program: whatever breaks in it, these messages broke it
            problem = f"the model's chat template refuses it: {str(error)[:200]}"
            raise BadRow(row=row.number, problem=problem) from error

    def _encode(self, text: str, *, special: bool) -> list[int]:
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=special)]


def bounded(examples: Sequence[Example], max_length: int) -> tuple[list[Example], Lengths]:
    """Examples of at most that many tokens, cut at the end; those without room for any of the answer are left out."""
    fitting = [example for example in examples if example.prompt_tokens < max_length]
    shortened = [
        example
        if len(example.ids) <= max_length
        else Example(example.number, example.ids[:max_length], example.prompt_tokens, truncated=True)
        for example in fitting
    ]
    prompt_tokens = sum(example.prompt_tokens for example in shortened)
    lengths = Lengths(
        rows=len(shortened),
        truncated=sum(example.truncated for example in shortened),
        dropped=len(examples) - len(fitting),
        prompt_tokens=prompt_tokens,
        completion_tokens=sum(len(example.ids) for example in shortened) - prompt_tokens,
    )
    return shortened, lengths
