"""Spans kept in the data folder, and a trace drawn from them as a waterfall."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

BAR: Final = "█"
POINT: Final = "▏"
DEEP: Final = 8
"""A trace deeper than this is indented by one blank a level, or its names would leave the page."""
NS: Final = 1e9


@dataclass(frozen=True)
class Span:
    """One finished span, as the kit's telemetry keeps it."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    service: str
    start_ns: int
    end_ns: int
    status: str = "unset"
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / NS


@dataclass(frozen=True)
class Row:
    """A line of a waterfall: how deep the span lies, and when it ran, in seconds from the trace's beginning."""

    span: Span
    depth: int
    start: float
    end: float
    repeated: int = 1


def read_spans(folder: Path, trace_id: str = "") -> list[Span]:
    """Every span below the folder, of one trace when it is named. A line cut by a crash is passed over."""
    spans: dict[tuple[str, str], Span] = {}
    for file in sorted(folder.glob("*.jsonl*")):
        for line in _lines(file):
            if trace_id and trace_id not in line:
                continue
            try:
                fields = json.loads(line)
                span = Span(**{name: fields[name] for name in Span.__dataclass_fields__ if name in fields})
            except (ValueError, TypeError):
                continue
            if not trace_id or span.trace_id == trace_id:
                spans[span.trace_id, span.span_id] = span
    return sorted(spans.values(), key=lambda span: (span.start_ns, span.span_id))


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            yield from opened
    except FileNotFoundError:  # rolled over meanwhile
        return


@dataclass(frozen=True)
class TraceSummary:
    """A trace in one line."""

    trace_id: str
    name: str
    services: tuple[str, ...]
    spans: int
    start_ns: int
    seconds: float


def summarise(spans: Iterable[Span]) -> list[TraceSummary]:
    """Every trace, the newest first."""
    by_trace: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_trace[span.trace_id].append(span)
    summaries = []
    for trace_id, members in by_trace.items():
        first = min(members, key=lambda span: span.start_ns)
        end = max(span.end_ns for span in members)
        services = tuple(sorted({span.service for span in members}))
        seconds = (end - first.start_ns) / NS
        summaries.append(TraceSummary(trace_id, first.name, services, len(members), first.start_ns, seconds))
    return sorted(summaries, key=lambda summary: -summary.start_ns)


def waterfall(spans: list[Span], limit: int = 0) -> list[Row]:
    """The trace's spans, children below their parents in the order they began.

    Siblings of one name and service that have no children and are more than three become one row. A span whose parent
    is not known stands at the top. At most `limit` rows (0: all): the shortest leaves go first.
    """
    if not spans:
        return []
    begin = min(span.start_ns for span in spans)
    known = {span.span_id for span in spans}
    children: defaultdict[str | None, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.start_ns, span.span_id)):
        children[span.parent_id if span.parent_id in known else None].append(span)
    rows = list(_below(None, 0, children, begin))
    return _shortened(rows, limit) if limit else rows


def _below(parent: str | None, depth: int, children: dict[str | None, list[Span]], begin: int) -> Iterator[Row]:
    groups: defaultdict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in children.get(parent, []):
        if span.span_id not in children:
            groups[span.service, span.name].append(span)
    folded = {key for key, members in groups.items() if len(members) > 3}
    shown: set[tuple[str, str]] = set()
    for span in children.get(parent, []):
        key = (span.service, span.name)
        if key in folded and span.span_id not in children:
            if key not in shown:
                shown.add(key)
                yield _row(groups[key], depth, begin)
            continue
        yield _row([span], depth, begin)
        yield from _below(span.span_id, depth + 1, children, begin)


def _row(spans: list[Span], depth: int, begin: int) -> Row:
    start, end = min(span.start_ns for span in spans), max(span.end_ns for span in spans)
    return Row(spans[0], depth, (start - begin) / NS, (end - begin) / NS, len(spans))


def _shortened(rows: list[Row], limit: int) -> list[Row]:
    """The longest rows and all that they stand below, in their order."""
    rendered: set[int] = set()
    for index in sorted(range(len(rows)), key=lambda index: rows[index].start - rows[index].end):
        branch = {index, *_ancestors(rows, index)}
        if len(rendered | branch) <= limit:
            rendered |= branch
    return [row for index, row in enumerate(rows) if index in rendered]


def _ancestors(rows: list[Row], index: int) -> Iterator[int]:
    depth = rows[index].depth
    for above in range(index - 1, -1, -1):
        if rows[above].depth < depth:
            depth = rows[above].depth
            yield above


def draw(rows: list[Row], width: int = 120) -> list[str]:
    """One line a row: service, name, when it began, how long it took, and a bar over the whole trace."""
    if not rows:
        return []
    total = max([row.end for row in rows] + [1e-9])
    indent = 2 if max(row.depth for row in rows) <= DEEP else 1
    labels = [_label(row, indent) for row in rows]
    services = [row.span.service.removeprefix("millrace-") for row in rows]
    first = max(map(len, services))
    second = min(max(map(len, labels)), 56)
    bar = max(width - first - second - 24, 10)
    return [
        f"{service:<{first}}  {label[:second]:<{second}}  {row.start:>7.2f}s {_length(row.end - row.start):>8}  "
        f"{_bar(row, total, bar)}"
        for row, service, label in zip(rows, services, labels, strict=True)
    ]


def _label(row: Row, indent: int) -> str:
    times = f" ×{row.repeated}" if row.repeated > 1 else ""
    failed = " ✗" if row.span.status == "error" else ""
    return f"{' ' * indent * row.depth}{row.span.name}{times}{failed}"


def _length(seconds: float) -> str:
    return f"{seconds:.2f}s" if seconds >= 1 else f"{seconds * 1000:.1f}ms"


def _bar(row: Row, total: float, width: int) -> str:
    left = min(int(row.start / total * width), width - 1)
    filled = int((row.end - row.start) / total * width)
    return " " * left + (BAR * filled if filled else POINT)
