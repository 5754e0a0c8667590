"""The rows of a batch: how they are asked about together, and the line that tells what came of each. Pure."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.contracts.errors import MillraceError
from services.contracts.tasks.records import Source
from services.contracts.tasks.registry import AnyTask
from services.contracts.tasks.task import RequestLimits
from services.gateway.domain.batches import Batch, Part
from services.gateway.domain.requests import Answer, Predict

_TEXT_FIELD = re.compile(r"texts\[\d+\]")


@dataclass(frozen=True, slots=True)
class InputRow:
    """A row as it stands in the file; `problem` where it holds no text that could be read."""

    number: int
    text: str
    problem: MillraceError | None = None


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One line of the output."""

    row: int
    content: bytes
    version: int
    """Which one answered; 0 where the line is an error."""


def checked(row: InputRow, batch: Batch, task: AnyTask, limits: RequestLimits) -> InputRow:
    """The same row, with its problem where its text is one that no deployment takes."""
    if row.problem is None:
        try:
            task.check(task.from_texts([row.text], batch.spec.options), limits)
        except MillraceError as error:
            return InputRow(row.number, row.text, error)
    return row


def groups(rows: Sequence[InputRow], size: int) -> Iterator[list[InputRow]]:
    """Rows that can be asked about, so many at a time."""
    good = [row for row in rows if row.problem is None]
    for start in range(0, len(good), size):
        yield good[start : start + size]


def command_of(batch: Batch, task: AnyTask, rows: Sequence[InputRow], *, deadline: float) -> Predict:
    """A repetition after a kill has the same request id, so that it counts once for those who watch the traffic."""
    spec = batch.spec
    return Predict(
        tenant=batch.tenant,
        deployment=spec.deployment,
        task=task,
        request=task.from_texts([row.text for row in rows], spec.options),
        request_id=f"{batch.id}.{rows[0].number}",
        deadline=deadline,
        version=spec.version,
        source=Source.BATCH,
    )


def answer_lines(rows: Sequence[InputRow], answer: Answer) -> list[OutputRow]:
    lines = []
    for row, line in zip(rows, answer.task.lines(answer.result()), strict=True):
        content = _line({"row": row.number, **line, "version": answer.version})
        lines.append(OutputRow(row.number, content, answer.version))
    return lines


def error_line(row: InputRow, problem: MillraceError) -> OutputRow:
    """A row is asked about with others, so its place among them says nothing."""
    message = _TEXT_FIELD.sub("text", str(problem))
    fields = {"row": row.number, "error": {"code": problem.code, "message": message}}
    return OutputRow(row.number, _line(fields), 0)


def part_of(batch: Batch, lines: Sequence[OutputRow], *, fence: int, read_bytes: int) -> tuple[Part, bytes]:
    """The next part of the batch, and its content. Its name holds the fence: a late worker writes beside it."""
    ordered = sorted(lines, key=lambda line: line.row)
    content = b"".join(line.content for line in ordered)
    number = batch.parts + 1
    part = Part(
        number=number,
        name=f"part-{number:06d}-{fence}.jsonl",
        rows=len(ordered),
        failed_rows=sum(line.version == 0 for line in ordered),
        last_row=ordered[-1].row,
        read_bytes=read_bytes,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        versions=sorted({line.version for line in ordered} - {0}),
    )
    return part, content


def manifest(batch: Batch, *, sha256: str, size_bytes: int) -> bytes:
    """What the output is, beside it."""
    fields = {
        "batch": batch.id,
        "deployment": batch.spec.deployment,
        "task": batch.spec.task,
        "input": batch.spec.uri,
        "rows": batch.rows,
        "failed_rows": batch.failed_rows,
        "versions": list(batch.versions),
        "output": {"name": "output.jsonl", "size_bytes": size_bytes, "sha256": sha256},
    }
    return f"{json.dumps(fields, ensure_ascii=False, indent=2)}\n".encode()


def _line(row: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(row, ensure_ascii=False, separators=(',', ':'))}\n".encode()
