"""Stage 1: from a file of rows to clean, distinct rows, each in its split.

A row's split is decided by a hash of its text (or group), so that a test row is a test row in every later data
set: test rows lie at the low end of the hash's range, reference rows at the high end, and a larger data set with the
same number of test rows only narrows the end. By growth no row that an earlier version learned from becomes a test row.
"""

import hashlib
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic import BaseModel

from services.contracts.training import Columns
from services.kit.core.duplicates import first_likes, normalised
from services.kit.core.tabular import UnusableData
from services.trainer.domain.spec import BASE, FEEDBACK, DataContent, Limits, Split, Splitting, Stage
from services.trainer.errors import ContentChanged, EmptyData, OneClass, TooFewRows, TooManyLabels
from services.trainer.stages.folder import Finished, RunFolder, file_hash, hash_of
from services.trainer.stages.reading import RawRow, read_content, read_rows
from services.trainer.stages.spec import RunSpec

ROWS_FILE: Final = "rows.jsonl"
MIN_SPLIT_ROWS: Final = 20
_SALT: Final = "millrace split 1"


@dataclass(frozen=True)
class Row:
    """A prepared row. `number` and `source` say where it came from."""

    text: str
    label: str
    split: Split
    source: str
    number: int
    group: str | None = None


class Dropped(BaseModel):
    """Rows left out, by reason."""

    empty: int = 0
    repeated: int = 0
    contradictory: int = 0
    unknown_label: int = 0
    not_needed: int = 0


class Prepared(Finished):
    labels: list[str]
    data_hash: str
    content: DataContent
    splits: dict[Split, int]
    sources: dict[str, int]
    dropped: Dropped
    near_duplicates_removed: bool


def prepare(folder: RunFolder, spec: RunSpec) -> Prepared:
    """Writes `rows.jsonl`. Raises a kind of UnusableData, with the row where there is one."""
    content, raw = _read(folder, spec)
    base, dropped = _usable(raw, spec.limits)
    _require_classes(base, spec.limits)
    near = len(base) <= spec.limits.near_duplicate_rows
    distinct, dropped = _distinct(base, dropped, near=near)
    labels = _labels(distinct, base, spec.limits)
    feedback, dropped = _feedback(spec, distinct, labels, dropped, near=near)
    rows = [*_split(distinct, BASE, spec), *_split(feedback, FEEDBACK, spec)]
    rows, dropped = _thinned(rows, spec, dropped)
    _require_splits(rows)
    folder.write(ROWS_FILE, "".join(_line(row) for row in rows).encode())
    return Prepared(
        inputs=prepare_inputs(spec),
        labels=labels,
        data_hash=file_hash(folder / ROWS_FILE),
        content=content,
        splits={split: sum(row.split is split for row in rows) for split in Split},
        sources=dict(Counter(row.source for row in rows)),
        dropped=dropped,
        near_duplicates_removed=near,
    )


def _read(folder: RunFolder, spec: RunSpec) -> tuple[DataContent, list[RawRow]]:
    """The file, if it is the one that was announced, and its rows; which file it was is told whatever the rows hold."""
    content = read_content(spec.data, spec.limits)
    if spec.content_hash not in (None, content.sha256):
        raise ContentChanged(actual=content.sha256, announced=spec.content_hash)
    try:
        raw = list(read_rows(spec.data, spec.format, spec.columns, spec.limits, content))
    except UnusableData:
        folder.report(Stage.PREPARE, 0.1, "a row cannot be read", content=content)
        raise
    content = content.model_copy(update={"rows": len(raw)})
    folder.report(Stage.PREPARE, 0.3, "rows read", {"rows": len(raw)}, content)
    return content, raw


def prepare_inputs(spec: RunSpec) -> str:
    """The hash of all that preparing depends on; a missing file is left for `prepare` to refuse."""
    files = [file_hash(path) if path.is_file() else "" for path in (spec.data, spec.feedback) if path is not None]
    recipe = spec.recipe
    sizes = (recipe.test_rows, recipe.reference_rows, recipe.train_rows)
    limits = spec.limits.model_copy(update={"memory_mib": None})
    return hash_of(Stage.PREPARE, files, spec.format, spec.columns, sizes, limits, spec.splitting)


def load_rows(folder: RunFolder, split: Split) -> list[Row]:
    """The prepared rows of one split, in the order of the file."""
    with (folder / ROWS_FILE).open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [Row(**{**record, "split": split}) for record in records if record["split"] == split]


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on the key alone, evenly spread."""
    return int.from_bytes(hashlib.sha256(f"{_SALT}\n{key}".encode()).digest()[:8]) / 2**64


def clean(text: str) -> str:
    """NFC, without control characters, single blanks."""
    composed = unicodedata.normalize("NFC", text)
    visible = "".join(" " if unicodedata.category(character) == "Cc" else character for character in composed)
    return " ".join(visible.split())


def _usable(rows: Sequence[RawRow], limits: Limits) -> tuple[list[RawRow], Dropped]:
    cleaned = [replace(row, text=clean(row.text), label=clean(row.label)) for row in rows]
    usable = [row for row in cleaned if normalised(row.text) and row.label]
    if not usable:
        raise EmptyData(row=rows[0].number if rows else None)
    return usable, Dropped(empty=len(rows) - len(usable))


def _require_classes(rows: Sequence[RawRow], limits: Limits) -> None:
    seen: set[str] = set()
    for row in rows:
        seen.add(row.label)
        if len(seen) > limits.max_labels:
            raise TooManyLabels(limit=limits.max_labels, row=row.number)
    if len(seen) == 1:
        raise OneClass(label=rows[0].label, row=rows[0].number)


def _distinct(rows: Sequence[RawRow], dropped: Dropped, *, near: bool) -> tuple[list[RawRow], Dropped]:
    """One row of each set of likes; none where the likes carry two labels."""
    likes = _likes([row.text for row in rows], near=near)
    labels: defaultdict[int, set[str]] = defaultdict(set)
    for index, like in enumerate(likes):
        labels[index if like is None else like].add(rows[index].label)
    firsts = [index for index, like in enumerate(likes) if like is None]
    distinct = [rows[index] for index in firsts if len(labels[index]) == 1]
    torn = {index for index in firsts if len(labels[index]) > 1}
    contradictory = sum((index if like is None else like) in torn for index, like in enumerate(likes))
    counted = {"repeated": len(rows) - len(distinct) - contradictory, "contradictory": contradictory}
    return distinct, dropped.model_copy(update=counted)


def _likes(texts: Sequence[str], *, near: bool) -> list[int | None]:
    if near:
        return first_likes(texts)
    first: dict[str, int] = {}
    matches = [first.setdefault(normalised(text), index) for index, text in enumerate(texts)]
    return [None if like == index else like for index, like in enumerate(matches)]


def _labels(distinct: Sequence[RawRow], base: Sequence[RawRow], limits: Limits) -> list[str]:
    counts = Counter(row.label for row in distinct)
    for row in base:
        if counts[row.label] < limits.min_rows_per_label:
            raise TooFewRows(
                what=f"the label {row.label}",
                actual=counts[row.label],
                needed=limits.min_rows_per_label,
                row=row.number,
            )
    return sorted(counts)


def _feedback(
    spec: RunSpec, base: Sequence[RawRow], labels: Sequence[str], dropped: Dropped, *, near: bool
) -> tuple[list[RawRow], Dropped]:
    """Labelled traffic that the base does not have; where they contradict, the base stands."""
    if spec.feedback is None:
        return [], dropped
    raw, empty = _usable(list(read_rows(spec.feedback, "jsonl", Columns(), spec.limits)), spec.limits)
    known = [row for row in raw if row.label in labels]
    distinct, counted = _distinct(known, Dropped(), near=near) if known else ([], Dropped())
    likes = _likes([row.text for row in (*base, *distinct)], near=near)[len(base) :]
    fresh = [row for row, like in zip(distinct, likes, strict=True) if like is None]
    sums = {
        "empty": dropped.empty + empty.empty,
        "repeated": dropped.repeated + counted.repeated + len(distinct) - len(fresh),
        "contradictory": dropped.contradictory + counted.contradictory,
        "unknown_label": len(raw) - len(known),
    }
    return fresh, dropped.model_copy(update=sums)


def _split(rows: Sequence[RawRow], source: str, spec: RunSpec) -> Iterator[Row]:
    test, reference = _shares(len(rows), source, spec)
    for row in rows:
        position = hash_fraction(row.group or normalised(row.text))
        split = row.split or (
            Split.TEST if position < test else Split.REFERENCE if position >= 1 - reference else Split.TRAIN
        )
        yield Row(row.text, row.label, split, source, row.number, row.group)


def _shares(rows: int, source: str, spec: RunSpec) -> tuple[float, float]:
    rule: Splitting = spec.splitting
    if source == FEEDBACK:
        return rule.feedback_test_share, rule.feedback_reference_share
    sizes = (spec.recipe.test_rows, spec.recipe.reference_rows)
    return (min(rule.largest_share, sizes[0] / rows), min(rule.largest_share, sizes[1] / rows))


def _thinned(rows: Sequence[Row], spec: RunSpec, dropped: Dropped) -> tuple[list[Row], Dropped]:
    """At most the recipe's train rows, and no more base rows in the reference than the splitting's weight allows."""
    surplus = set(_surplus_reference(rows, spec.splitting))
    train = [index for index, row in enumerate(rows) if row.split is Split.TRAIN and row.source == BASE]
    if spec.recipe.train_rows is not None:
        train.sort(key=lambda index: hash_fraction("train\n" + normalised(rows[index].text)))
        surplus.update(train[spec.recipe.train_rows :])
    distinct = [row for index, row in enumerate(rows) if index not in surplus]
    return distinct, dropped.model_copy(update={"not_needed": len(surplus)})


def _surplus_reference(rows: Sequence[Row], rule: Splitting) -> list[int]:
    feedback = sum(row.split is Split.REFERENCE and row.source == FEEDBACK for row in rows)
    base = [index for index, row in enumerate(rows) if row.split is Split.REFERENCE and row.source == BASE]
    if not feedback or rule.reference_feedback_weight == 0:
        return []
    allowed = round(feedback * (1 - rule.reference_feedback_weight) / rule.reference_feedback_weight)
    base.sort(key=lambda index: hash_fraction("reference\n" + normalised(rows[index].text)))
    return base[max(allowed, MIN_SPLIT_ROWS) :]


def _require_splits(rows: Sequence[Row]) -> None:
    for split in Split:
        matches = sum(row.split is split for row in rows)
        if matches < MIN_SPLIT_ROWS:
            raise TooFewRows(what=f"the {split} split", actual=matches, needed=MIN_SPLIT_ROWS)
    learned = {row.label for row in rows if row.split is Split.TRAIN}
    for row in rows:
        if row.label not in learned:
            raise TooFewRows(what=f"the label {row.label} in the train split", actual=0, needed=1, row=row.number)


def _line(row: Row) -> str:
    record = {
        "text": row.text, "label": row.label, "split": row.split, "source": row.source, "number": row.number,
        "group": row.group,
    }  # fmt: skip
    return json.dumps(record, ensure_ascii=False) + "\n"
