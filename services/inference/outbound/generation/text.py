"""Between a model's tokens and texts: its tokenizer, and the template by which messages become a prompt."""

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from services.contracts.artifact import TEMPLATE_FILE, TOKENIZER_FILE, DecoderSpec
from services.contracts.errors import BadField
from services.contracts.tasks.generation import Message, Prompt
from services.inference.domain.stopping import StopTexts
from services.inference.errors import ArtifactRefused
from services.inference.outbound.generation.token_bytes import token_bytes
from services.kit.core.log import logger

TEMPLATE_BYTES: Final = 256 * 1024
_DEVELOPER: Final = "developer"
_UNFINISHED: Final = "\ufffd"
_LONGEST_CHARACTER: Final = 4
"""Bytes of UTF-8, and so the most tokens that one character takes."""


class ChatTemplate:
    """Renders a conversation, ready for the model's answer, as transformers' `apply_chat_template` does.

    It runs in Jinja's sandbox, with the functions and the settings that templates on model hubs rely on.
    """

    def __init__(self, source: str, special_tokens: dict[str, str], now: Callable[[], datetime]) -> None:
        """Raises ArtifactRefused where it is no template."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: now().strftime(form)}
        environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": False}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ArtifactRefused("bad_template", "its chat template cannot be read") from error
        self._special_tokens = special_tokens
        self._knows_developer = _DEVELOPER in source

    def render(self, messages: Sequence[Message]) -> str:
        """Raises BadField where the template does not take these messages."""
        try:
            return self._template.render(
                messages=[self._shown(message) for message in messages],
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except Exception as error:  # a template is a program: whatever breaks in it, these messages broke it
            problem = str(error)[:200] if isinstance(error, TemplateError) else "the template breaks on them"
            raise BadField(
                name="messages", problem=f"the model's chat template refuses them: {problem}", field="messages"
            ) from error

    def _shown(self, message: Message) -> dict[str, Any]:
        role = message.role
        if role == _DEVELOPER and not self._knows_developer:
            role = "system"
        return {"role": role, "content": message.content} | ({"name": message.name} if message.name else {})


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


class TextCodec:
    """What a loaded model reads and writes. Any number of threads may call it."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    @classmethod
    def open(cls, folder: Path, spec: DecoderSpec, now: Callable[[], datetime]) -> "TextCodec":
        """Raises ArtifactRefused."""
        # Prompts come one by one; the library's pool would fight the engine for its cores.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            tokenizer = Tokenizer.from_str((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception for every kind of bad file
            logger.warning("tokenizer not readable: %s", error)
            raise ArtifactRefused("bad_tokenizer", "its tokenizer cannot be read") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        path = folder / TEMPLATE_FILE
        if not path.is_file():
            return cls(tokenizer, None)
        if path.stat().st_size > TEMPLATE_BYTES:
            raise ArtifactRefused("bad_template", f"its chat template has more than {TEMPLATE_BYTES} bytes")
        return cls(tokenizer, ChatTemplate(path.read_text(encoding="utf-8"), spec.special_tokens, now))

    @property
    def has_template(self) -> bool:
        return self._template is not None

    def encode(self, prompt: Prompt, field: str) -> list[int]:
        """Token ids. Raises BadField where the model has no template for messages, or does not take these."""
        if isinstance(prompt, str):
            return list(self._tokenizer.encode(prompt).ids)
        if self._template is None:
            raise BadField(
                name=field, problem="the model has no chat template", field=field, hint="send a 'prompt' instead"
            )
        return list(self._tokenizer.encode(self._template.render(prompt), add_special_tokens=False).ids)

    def token_bytes(self, token: int) -> bytes:
        return token_bytes(self._tokenizer, token)

    def answer(self, stops: Sequence[str]) -> "AnswerText":
        return AnswerText(self._tokenizer, StopTexts(stops))


class AnswerText:
    """The text of one answer as its tokens come: whole characters, without special tokens, up to a stop text.

    What a token adds depends on the one before it (a space, say), so each is decoded together with those that were
    shown last. `tokenizers`' DecodeStream would wait without end for bytes that are no character.
    """

    def __init__(self, tokenizer: Tokenizer, stops: StopTexts) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._shown: list[int] = []
        self._pending: list[int] = []

    @property
    def stopped(self) -> bool:
        return self._stops.stopped

    def push(self, token: int) -> str:
        """What may be shown now; empty while a character or a stop text may be unfinished."""
        self._pending.append(token)
        text = self._new_text()
        unfinished = text.endswith(_UNFINISHED)
        if not text or (unfinished and len(self._pending) < _LONGEST_CHARACTER):
            return ""
        self._shown, self._pending = ([] if unfinished else self._pending), []
        return self._stops.push(text)

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        text, self._pending = self._new_text(), []
        return self._stops.push(text) + self._stops.flush()

    def _new_text(self) -> str:
        """What the pending tokens add to those that were shown last."""
        before = self._tokenizer.decode(self._shown, skip_special_tokens=True)
        return str(self._tokenizer.decode(self._shown + self._pending, skip_special_tokens=True)[len(before) :])
