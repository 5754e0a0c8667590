"""Reads a data set row by row, and refuses what is not one, naming the row."""

import csv
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final, Literal

from services.contracts.training import Columns
from services.trainer.domain.spec import DataContent, Limits, Split
from services.trainer.errors import (
    BadRow,
    ContentChanged,
    MissingColumn,
    MissingFile,
    NoRegularFile,
    NotUtf8,
    NulByte,
    RaggedRow,
    TextTooLong,
    TooLargeData,
    TooManyRows,
    TruncatedFile,
    UnknownSplit,
)

MAX_LABEL_CHARACTERS: Final = 200


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in the file; text or label may be empty. `number` counts from 1, a header left out."""

    number: int
    text: str
    label: str
    split: Split | None
    group: str | None


def read_content(path: Path, limits: Limits) -> DataContent:
    """What fixes the file. Raises a kind of UnusableData when there is none, or a too large one."""
    with _open(path, limits) as file:
        digest = hashlib.file_digest(file, "sha256")
        return DataContent(sha256=digest.hexdigest(), size_bytes=file.tell())


def read_rows(
    path: Path, form: Literal["jsonl", "csv"], columns: Columns, limits: Limits, content: DataContent | None = None
) -> Iterator[RawRow]:
    """Every row of the file. Raises a kind of UnusableData at the first row that cannot be read.

    ContentChanged after the last one, when that was not the `content`: somebody wrote into the file meanwhile.
    """
    with _open(path, limits) as opened:
        file = _Hashed(opened)
        records = _csv(file, limits) if form == "csv" else _jsonl(file, limits)
        for number, record in records:
            if number > limits.max_rows:
                raise TooManyRows(limit=limits.max_rows, row=number)
            yield _row(number, record, columns, limits)
        if content is not None and file.digest.hexdigest() != content.sha256:
            raise ContentChanged(found=file.digest.hexdigest(), announced=content.sha256)


class _Hashed:
    """Lines of a file, and the hash of those that were read."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readline(self, longest: int) -> bytes:
        line = self._file.readline(longest)
        self.digest.update(line)
        return line


def _open(path: Path, limits: Limits) -> BufferedReader:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:  # missing, forbidden, or a link put in its place
        raise MissingFile from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise NoRegularFile
    if found.st_size > limits.max_bytes:
        os.close(descriptor)
        raise TooLargeData(limit_bytes=limits.max_bytes)
    return os.fdopen(descriptor, "rb")


def _lines(file: _Hashed, limits: Limits) -> Iterator[str]:
    """Decoded lines; the row an error names is the line, which the CSV reader corrects."""
    read = 0
    longest = 8 * limits.max_text_characters + 65_536
    for number in range(1, limits.max_bytes + 2):
        line = file.readline(longest)
        if not line:
            return
        read += len(line)
        if read > limits.max_bytes:
            raise TooLargeData(limit_bytes=limits.max_bytes, row=number)
        if len(line) == longest and not line.endswith(b"\n"):
            raise TextTooLong(row=number, limit=limits.max_text_characters)
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise NotUtf8(row=number) from error
        if "\0" in text:
            raise NulByte(row=number)
        yield text


def _jsonl(file: _Hashed, limits: Limits) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(_lines(file, limits), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            if not line.endswith("\n"):
                raise TruncatedFile(row=number) from error
            raise BadRow(row=number, problem="it is not JSON") from error
        if not isinstance(record, dict):
            raise BadRow(row=number, problem="it is not a JSON object")
        yield number, record


def _csv(file: _Hashed, limits: Limits) -> Iterator[tuple[int, Mapping[str, object]]]:
    csv.field_size_limit(4 * limits.max_text_characters + 4096)
    records = csv.reader(_lines(file, limits), strict=True)
    header: list[str] | None = None
    number = 0
    while True:
        try:
            fields = next(records, None)
        except (NulByte, NotUtf8, TextTooLong) as error:
            raise type(error)(row=number + 1, limit=limits.max_text_characters) from error
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
            raise RaggedRow(row=number, found=len(fields), expected=len(header))
        yield number, dict(zip(header, fields, strict=True))


def _row(number: int, record: Mapping[str, object], columns: Columns, limits: Limits) -> RawRow:
    text = _field(number, record, columns.text)
    label = _field(number, record, columns.label)
    if len(text) > limits.max_text_characters:
        raise TextTooLong(row=number, limit=limits.max_text_characters)
    if len(label) > MAX_LABEL_CHARACTERS:
        raise BadRow(row=number, problem=f"its label is longer than {MAX_LABEL_CHARACTERS} characters")
    split = _field(number, record, columns.split).strip() if columns.split else ""
    if split and split not in tuple(Split):
        raise UnknownSplit(row=number, split=split[:50])
    group = _field(number, record, columns.group) if columns.group else None
    return RawRow(number, text, label, Split(split) if split else None, group)


def _field(number: int, record: Mapping[str, object], column: str) -> str:
    if column not in record:
        found = ", ".join(sorted(map(str, record))[:20])
        raise MissingColumn(column=column, found=found, row=number)
    value = record[column]
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRow(row=number, problem=f"the column {column} holds neither text nor a whole number")
    return str(value)
