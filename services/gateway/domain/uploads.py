"""What may be uploaded as a data set, and what is looked at on the way. Pure.

Only what is cheap: that it is text in UTF-8, not empty, not too large, and what was announced. Rows, columns and labels
are the trainer's to judge, which reads them anyway.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Final

from services.contracts.content import Content
from services.contracts.errors import BadField, Malformed
from services.gateway.domain.requests import check_name
from services.gateway.errors import BodyTooLarge, EmptyUpload, NotText, WrongContent

FORMATS: Final = ("jsonl", "csv")
MEDIA: Final = {
    "jsonl": frozenset(
        {"application/x-ndjson", "application/jsonl", "application/jsonlines", "application/x-jsonlines"}
    ),
    "csv": frozenset({"text/csv", "application/csv"}),
}
"""What each format is called as a media type; `application/octet-stream` stands for either."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SOME_OF_IT: Final = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class NewContent:
    """A data set's content is about to come; size and hash where the sender knows them."""

    dataset: str
    format: str
    size_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The content is on disk and can be announced by its address."""

    dataset: str
    format: str
    uri: str
    content: Content
    already_there: bool


def check_upload(announced: NewContent, *, limit_bytes: int) -> None:
    """Raises Malformed, BadField or BodyTooLarge before anything has come."""
    check_name(announced.dataset, "dataset")
    if announced.format not in FORMATS:
        raise BadField(name="format", problem=f"it must be one of {', '.join(FORMATS)}", field="format")
    if announced.sha256 and not _SHA256.fullmatch(announced.sha256):
        raise BadField(name="sha256", problem="it must be 64 hexadecimal digits in lower case", field="sha256")
    if announced.size_bytes > limit_bytes:
        raise BodyTooLarge(limit=limit_bytes, field="size_bytes")


def check_content(announced: NewContent, came: Content) -> None:
    """Raises EmptyUpload, or WrongContent when it is not what was announced."""
    if not came.size_bytes:
        raise EmptyUpload
    if announced.size_bytes and announced.size_bytes != came.size_bytes:
        raise WrongContent(what=f"{came.size_bytes} bytes came, not {announced.size_bytes}", field="size_bytes")
    if announced.sha256 and announced.sha256 != came.sha256:
        raise WrongContent(what=f"its SHA-256 is {came.sha256}", field="sha256")


def check_content_hash(text: str, at: str) -> None:
    """Raises Malformed unless it is a SHA-256 or the beginning of one."""
    if not _SOME_OF_IT.fullmatch(text):
        raise Malformed(problem="a content hash has 8 to 64 hexadecimal digits, in lower case", field=at)


class TextCheck:
    """Looks at a content part by part: how much came, and whether it is UTF-8 without NUL."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.received_bytes = 0

    def take(self, chunk: bytes) -> None:
        """Raises BodyTooLarge or NotText, with the place of the first bad byte."""
        before, self.received_bytes = self.received_bytes, self.received_bytes + len(chunk)
        if self.received_bytes > self._limit_bytes:
            raise BodyTooLarge(limit=self._limit_bytes, field="body")
        if (index := chunk.find(b"\0")) >= 0:
            raise NotText(index=before + index, problem="a NUL byte")
        held = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise NotText(index=before - held + error.start, problem="what is not UTF-8") from error

    def end(self) -> None:
        """Raises NotText when the last character is cut short."""
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise NotText(index=self.received_bytes, problem="a character that is cut short") from error
