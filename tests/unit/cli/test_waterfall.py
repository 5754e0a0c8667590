"""Spans kept by the services become a waterfall that a person can read."""

import json
from dataclasses import asdict
from pathlib import Path

from services.cli.waterfall import Span, draw, read_spans, summarise, waterfall

TRACE = "a" * 32
SECOND = 1_000_000_000


def span(name: str, start: float, end: float, *, mark: str, parent: str | None = None, service: str = "one") -> Span:
    return Span(TRACE, mark, parent, name, f"millrace-{service}", int(start * SECOND), int(end * SECOND))


def keep(folder: Path, service: str, *spans: Span) -> None:
    lines = "".join(json.dumps({**asdict(one), "kind": "internal"}) + "\n" for one in spans)
    (folder / f"{service}.jsonl").write_text(lines)


def test_spans_of_all_services_are_read_in_the_order_they_began(tmp_path: Path) -> None:
    keep(tmp_path, "two", span("late", 2, 3, mark="2", parent="1", service="two"))
    keep(tmp_path, "one", span("early", 1, 4, mark="1"))
    assert [one.name for one in read_spans(tmp_path, TRACE)] == ["early", "late"]
    assert read_spans(tmp_path, "b" * 32) == []


def test_a_line_that_a_crash_cut_is_passed_over(tmp_path: Path) -> None:
    keep(tmp_path, "one", span("whole", 1, 2, mark="1"))
    with (tmp_path / "one.jsonl").open("a") as file:
        file.write('{"trace_id": "' + TRACE)
    assert [one.name for one in read_spans(tmp_path)] == ["whole"]


def test_children_stand_below_their_parents_and_orphans_at_the_top() -> None:
    spans = [
        span("root", 0, 10, mark="1"),
        span("child", 1, 2, mark="2", parent="1"),
        span("grandchild", 1, 2, mark="3", parent="2"),
        span("orphan", 5, 6, mark="4", parent="unknown"),
    ]
    assert [(row.span.name, row.depth) for row in waterfall(spans)] == [
        ("root", 0), ("child", 1), ("grandchild", 2), ("orphan", 0),
    ]  # fmt: skip


def test_many_alike_become_one_row() -> None:
    spans = [span("root", 0, 10, mark="root")]
    spans += [span("step", number, number + 1, mark=str(number), parent="root") for number in range(5)]
    rows = waterfall(spans)
    assert [(row.span.name, row.repeated) for row in rows] == [("root", 1), ("step", 5)]
    assert (rows[1].start, rows[1].end) == (0, 5)


def test_a_limit_keeps_the_longest_with_what_they_stand_below() -> None:
    spans = [
        span("root", 0, 10, mark="1"),
        span("short", 0, 1, mark="2", parent="1"),
        span("long", 1, 9, mark="3", parent="1"),
    ]
    assert [row.span.name for row in waterfall(spans, limit=2)] == ["root", "long"]


def test_a_drawing_names_service_and_time_and_fits_its_width() -> None:
    spans = [span("root", 0, 10, mark="1"), span("child", 5, 10, mark="2", parent="1", service="two")]
    lines = draw(waterfall(spans), width=100)
    assert all(len(line) <= 100 for line in lines)
    assert lines[0].startswith("one")
    assert "5.00s" in lines[1]
    assert lines[1].count("█") * 2 <= lines[0].count("█") + 1


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw(waterfall([])) == []


def test_a_summary_names_the_first_span_and_every_service() -> None:
    spans = [span("child", 5, 12, mark="2", parent="1", service="two"), span("root", 0, 10, mark="1")]
    (response,) = summarise(spans)
    assert (response.name, response.services, response.spans, response.seconds) == (
        "root",
        ("millrace-one", "millrace-two"),
        2,
        12.0,
    )
