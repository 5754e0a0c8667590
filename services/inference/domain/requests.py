"""What may be asked: the bounds of a request, checked before anything is queued."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.inference.errors import (
    BadRequestId,
    ContextLengthExceeded,
    EmptyText,
    NoTexts,
    TextTooLong,
    TooManyTexts,
)

# Room is left for the index of a text.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,119}")


@dataclass(frozen=True, slots=True)
class Reading:
    """How much of a text a version reads."""

    max_length: int
    """Tokens; the rest of the text is cut off."""
    characters_per_token: int
    """A text of more than `max_length` times this many characters is refused: cutting it would answer about
    a small part of it."""

    @property
    def max_characters(self) -> int:
        return self.max_length * self.characters_per_token


def check_count(texts: Sequence[str], limit: int) -> None:
    """Raises NoTexts or TooManyTexts."""
    if not texts:
        raise NoTexts
    if len(texts) > limit:
        raise TooManyTexts(texts=len(texts), limit=limit)


def check_texts(texts: Sequence[str], reading: Reading, *, whole: bool = False) -> None:
    """Raises EmptyText or TextTooLong, naming the first offending text as `texts[i]`.

    Of `whole` texts one that is too long by far is told the limit in tokens: ContextLengthExceeded.
    """
    limit = reading.max_characters
    for index, text in enumerate(texts):
        if len(text) > limit:
            if whole:
                raise ContextLengthExceeded(at=f"texts[{index}]", tokens=reading.max_length)
            raise TextTooLong(at=f"texts[{index}]", characters=len(text), limit=limit, tokens=reading.max_length)
        if not text or text.isspace():
            raise EmptyText(at=f"texts[{index}]")


def check_request_id(request: str) -> None:
    """Raises BadRequestId."""
    if not _REQUEST_ID.fullmatch(request):
        raise BadRequestId
