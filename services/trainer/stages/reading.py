"""Reads a data set row by row, and refuses what is not one, naming the row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from services.contracts.training import Columns
from services.kit.core.tabular import BadRow, Records, RowLimits, TextTooLong, UnusableData, content_of, field_of
from services.trainer.domain.spec import DataContent, Limits, Split
from services.trainer.errors import ContentChanged, UnknownSplit

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
    content = content_of(path, _bounds(limits))
    return DataContent(sha256=content.sha256, size_bytes=content.size_bytes)


def read_rows(
    path: Path, form: Literal["jsonl", "csv"], columns: Columns, limits: Limits, content: DataContent | None = None
) -> Iterator[RawRow]:
    """Every row of the file. Raises a kind of UnusableData at the first row that cannot be read.

    ContentChanged after the last one, when that was not the `content`: somebody wrote into the file meanwhile.
    """
    with Records(path, form, _bounds(limits)) as records:
        for number, record in records:
            if isinstance(record, UnusableData):
                raise record
            yield _row(number, record, columns, limits)
        matches = records.digest.hexdigest()
        if content is not None and matches != content.sha256:
            raise ContentChanged(actual=matches, announced=content.sha256)


def _bounds(limits: Limits) -> RowLimits:
    return RowLimits(limits.max_bytes, limits.max_rows, limits.max_text_characters)


def _row(number: int, record: Mapping[str, object], columns: Columns, limits: Limits) -> RawRow:
    text = field_of(number, record, columns.text)
    label = field_of(number, record, columns.label)
    if len(text) > limits.max_text_characters:
        raise TextTooLong(row=number, limit=limits.max_text_characters)
    if len(label) > MAX_LABEL_CHARACTERS:
        raise BadRow(row=number, problem=f"its label is longer than {MAX_LABEL_CHARACTERS} characters")
    split = field_of(number, record, columns.split).strip() if columns.split else ""
    if split and split not in tuple(Split):
        raise UnknownSplit(row=number, split=split[:50])
    group = field_of(number, record, columns.group) if columns.group else None
    return RawRow(number, text, label, Split(split) if split else None, group)
