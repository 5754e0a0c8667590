"""Texts of a request: read, checked, and judged by their labels; the same for every task that takes texts."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.contracts.errors import BadField, Malformed
from services.contracts.tasks.errors import ContextLengthExceeded, TextTooLong
from services.contracts.tasks.task import RequestLimits

MAX_TEXTS: Final = RequestLimits().texts
LOGGED_TEXT: Final = 4_000
"""Characters that the log keeps of one text."""
LOGGED_TEXTS: Final = 128_000
"""And of all texts of one request: a record must fit into an event."""


def read_texts(sent: Mapping[str, Any]) -> list[str]:
    """The field `texts`. Raises BadField."""
    texts = sent.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadField(name="texts", problem="it must be a list of strings", field="texts")
    return texts


def read_flag(sent: Mapping[str, Any], name: str) -> bool:
    """False where it is left out or null. Raises BadField."""
    value = sent.get(name) or False
    if not isinstance(value, bool):
        raise BadField(name=name, problem="it must be true or false", field=name)
    return value


def check_texts(texts: Sequence[str], limits: RequestLimits, *, truncate: bool) -> None:
    """Raises BadField, Malformed, TextTooLong or ContextLengthExceeded, which name the text by its place.

    A text that is far longer than the model reads is refused although `truncate` would cut it: the answer would be
    about a small part of it.
    """
    if not 1 <= len(texts) <= limits.texts:
        raise BadField(name="texts", problem=f"send 1 to {limits.texts} texts", field="texts")
    for index, text in enumerate(texts):
        if not text or text.isspace():
            raise BadField(name=f"texts[{index}]", problem="it is empty", field=f"texts[{index}]")
        if len(text) > limits.characters:
            _refuse_length(len(text), f"texts[{index}]", limits, truncate=truncate)
        if "\x00" in text:
            raise Malformed(problem="a text holds a NUL character", field=f"texts[{index}]")


def _refuse_length(length: int, at: str, limits: RequestLimits, *, truncate: bool) -> None:
    if not truncate and limits.tokens is not None:
        raise ContextLengthExceeded(limit=limits.tokens, unit="tokens", field=at)
    if not truncate:
        raise ContextLengthExceeded(limit=limits.characters, unit="characters", field=at)
    if limits.tokens is not None:
        raise TextTooLong(characters=length, limit=limits.characters, tokens=limits.tokens, field=at)
    problem = f"it has {length} characters, more than the limit of {limits.characters}"
    raise BadField(name=at, problem=problem, field=at)


def logged_texts(texts: Sequence[str]) -> list[dict[str, Any]]:
    """An item a text, cut so that all of them fit into a record."""
    limit = min(LOGGED_TEXT, LOGGED_TEXTS // max(1, len(texts)))
    return [{"text": text[:limit]} for text in texts]
