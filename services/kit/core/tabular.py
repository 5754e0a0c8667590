"""Files of rows that others hand over by address: where they may lie, and what of them can be read.

A file lies under one of the allowed roots, or nowhere. A row that cannot be read is told in its place; what makes the
rows after it unreadable too ends the reading. `row` among a refusal's facts is the offending one, counted from 1.
"""

import csv
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from services.contracts.content import Content
from services.contracts.errors import Invalid

Format = Literal["jsonl", "csv"]
_COLUMNS_SHOWN: Final = 20
_THIS_MACHINE: Final = ("", "localhost")


class UnusableData(Invalid):
    """The data cannot be used: {problem}."""

    field = "uri"

    @property
    def row(self) -> int | None:
        row = self.details.get("row")
        return row if isinstance(row, int) else None


class MissingFile(UnusableData):
    """There is no file at this address."""

    hint = "tell the address after the file is complete, and one that the service can read"


class NoRegularFile(UnusableData):
    """There is no regular file at this address."""


class OutsideRoots(UnusableData):
    """The address is outside the folders that may be read."""

    hint = "put the file under an allowed root (MILLRACE_TRAINER_DATA_ROOTS, MILLRACE_GATEWAY_DATA_ROOTS)"


class UnsupportedAddress(UnusableData):
    """The address cannot be read: {scheme} is not supported."""

    hint = "give a file:// address"


class TooLargeData(UnusableData):
    """The file is larger than the limit of {limit_bytes} bytes."""


class TooManyRows(UnusableData):
    """The file has more rows than the limit of {limit}."""


class NotUtf8(UnusableData):
    """Row {row} is not UTF-8 text."""

    hint = "save the file as UTF-8, in one encoding throughout"


class NulByte(UnusableData):
    """Row {row} holds a NUL byte."""


class RaggedRow(UnusableData):
    """Row {row} has {found} fields where the header has {expected}."""


class TruncatedFile(UnusableData):
    """The file ends inside row {row}."""


class BadRow(UnusableData):
    """Row {row} cannot be read: {problem}."""


class MissingColumn(UnusableData):
    """The column {column} is missing."""

    field = "columns"
    hint = "the columns found are: {found}"


class TextTooLong(UnusableData):
    """The text of row {row} is longer than the limit of {limit} characters."""


@dataclass(frozen=True, slots=True)
class RowLimits:
    """Bounds on what a file may cost."""

    max_bytes: int
    max_rows: int
    max_text_characters: int


Record = Mapping[str, object] | UnusableData
"""A row's columns, or why it cannot be read."""


def local_path(uri: str) -> Path | None:
    """The path of a `file:` address on this machine; None for any other address."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in _THIS_MACHINE else None


def locate(uri: str, roots: Sequence[Path]) -> Path:
    """The file, with every link resolved. Raises OutsideRoots, MissingFile, UnsupportedAddress.

    What lies outside the roots is refused before anybody looks whether it exists.
    """
    try:
        parts = urlsplit(uri)
        path = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise OutsideRoots from error
    if parts.scheme != "file" or parts.query or parts.fragment:
        raise UnsupportedAddress(scheme=parts.scheme[:20] or "a bare path")
    if parts.netloc not in _THIS_MACHINE or "\0" in path or not path.startswith("/"):
        raise OutsideRoots
    try:
        resolved = Path(path).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise OutsideRoots from error
    if not any(resolved.is_relative_to(root) for root in roots):
        raise OutsideRoots
    if not resolved.exists():
        raise MissingFile
    return resolved


def content_of(path: Path, limits: RowLimits) -> Content:
    """What fixes the file. Raises MissingFile, NoRegularFile, TooLargeData."""
    opened, stat_result = _open(path, limits)
    with opened:
        return Content(hashlib.file_digest(opened, "sha256").hexdigest(), stat_result.st_size)  # type: ignore[arg-type]


def field_of(number: int, record: Mapping[str, object], column: str) -> str:
    """A column's text; nothing for a null. Raises MissingColumn or BadRow."""
    if column not in record:
        names = ", ".join(sorted(map(str, record))[:_COLUMNS_SHOWN])
        raise MissingColumn(column=column, found=names, row=number)
    value = record[column]
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRow(row=number, problem=f"the column {column} holds neither text nor a whole number")
    return str(value)


class Records:
    """The rows of one open file, numbered from 1, a header left out; blank lines are passed over.

    Raises a kind of UnusableData, at once or at the row, for what makes the rest unreadable: a missing or endless file,
    a line without end, too many rows, a CSV whose quotes or encoding broke.
    """

    def __init__(self, path: Path, form: Format, limits: RowLimits) -> None:
        self._form = form
        self._limits = limits
        self._file, stat_result = _open(path, limits)
        self.size_bytes = stat_result.st_size
        self.stamp = f"{stat_result.st_ino}-{stat_result.st_size}-{stat_result.st_mtime_ns}"
        """Another one means that the file is another, or has changed."""
        self.read_bytes = 0
        self.digest = hashlib.sha256()
        """Of what was read so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        for number, record in self._csv() if self._form == "csv" else self._jsonl():
            if number > self._limits.max_rows:
                raise TooManyRows(limit=self._limits.max_rows, row=number)
            yield number, record

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The row an error names is the line, which the CSV reader corrects."""
        longest = 8 * self._limits.max_text_characters + 65_536
        for number in range(1, self._limits.max_bytes + 2):
            line = self._file.readline(longest)
            if not line:
                return
            self.read_bytes += len(line)
            self.digest.update(line)
            if self.read_bytes > self._limits.max_bytes:
                raise TooLargeData(limit_bytes=self._limits.max_bytes, row=number)
            if len(line) == longest and not line.endswith(b"\n"):
                raise TextTooLong(row=number, limit=self._limits.max_text_characters)
            yield number, line

    def _jsonl(self) -> Iterator[tuple[int, Record]]:
        for number, line in self._lines():
            try:
                text = _decoded(number, line)
                if text.strip():
                    yield number, _object(number, text)
            except TruncatedFile:
                raise
            except UnusableData as error:
                yield number, error

    def _csv(self) -> Iterator[tuple[int, Record]]:
        csv.field_size_limit(4 * self._limits.max_text_characters + 4096)
        records = csv.reader((_decoded(number, line) for number, line in self._lines()), strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            try:
                fields = next(records, None)
            except (NulByte, NotUtf8, TextTooLong) as error:
                raise type(error)(row=number + 1, limit=self._limits.max_text_characters) from error
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise TruncatedFile(row=number + 1) from error
                raise BadRow(row=number + 1, problem=str(error)) from error
            if fields is None:
                return
            if not fields:
                continue
            if header is None:
                header = [name.strip() for name in fields]
                if len(set(header)) < len(header):
                    raise BadRow(row=1, problem="two columns of the header have one name")
                continue
            number += 1
            if len(fields) != len(header):
                yield number, RaggedRow(row=number, found=len(fields), expected=len(header))
            else:
                yield number, dict(zip(header, fields, strict=True))


def _open(path: Path, limits: RowLimits) -> tuple[BinaryIO, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:  # missing, forbidden, or a link put in its place
        raise MissingFile from error
    stat_result = os.fstat(descriptor)
    if not stat.S_ISREG(stat_result.st_mode):
        os.close(descriptor)
        raise NoRegularFile
    if stat_result.st_size > limits.max_bytes:
        os.close(descriptor)
        raise TooLargeData(limit_bytes=limits.max_bytes)
    return os.fdopen(descriptor, "rb"), stat_result


def _decoded(number: int, line: bytes) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise NotUtf8(row=number) from error
    if "\0" in text:
        raise NulByte(row=number)
    return text


def _object(number: int, line: str) -> Mapping[str, object]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        if not line.endswith("\n"):
            raise TruncatedFile(row=number) from error
        raise BadRow(row=number, problem="it is not JSON") from error
    if not isinstance(record, dict):
        raise BadRow(row=number, problem="it is not a JSON object")
    return record
