"""A file's rows: what one row costs, and what costs all that come after it."""

from pathlib import Path
from typing import Any

import pytest

from services.kit.core.tabular import Format, Records, RowLimits, UnusableData, field_of, local_path

LIMITS = RowLimits(max_bytes=100_000, max_rows=5, max_text_characters=100)


def response(path: Path, form: Format) -> list[tuple[int, str]]:
    """Each row's number, with its text or the code of its refusal."""
    match = []
    with Records(path, form, LIMITS) as records:
        for number, record in records:
            text = record.code if isinstance(record, UnusableData) else field_of(number, record, "text")
            match.append((number, text))
    return match


def test_a_line_that_is_no_row_is_reported_in_its_turn_and_those_after_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\nno\n\n[1]\n{"text": "\xff"}\n')
    assert response(path, "jsonl") == [(1, "a"), (2, "bad_row"), (4, "bad_row"), (5, "not_utf8")]


def test_a_ragged_line_of_a_csv_is_reported_in_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text,other\n"a\nb",1\nshort\nc,3\n')
    assert response(path, "csv") == [(1, "a\nb"), (2, "ragged_row"), (3, "c")]


@pytest.mark.parametrize(
    ("form", "content", "code", "row"),
    [
        ("csv", b'text\n"a"b\n', "bad_row", 1),
        ("csv", b"text\na\n\xff\n", "not_utf8", 2),
        ("jsonl", b'{"text": "a"}\n{"text', "truncated_file", 2),
        ("jsonl", b'{"text": "a"}\n' * 6, "too_many_rows", 6),
        ("jsonl", b"x" * 90_000, "text_too_long", 1),
        ("jsonl", b"x" * 100_001, "too_large_data", None),
    ],
)
def test_what_makes_the_rest_unreadable_ends_the_reading(
    tmp_path: Path, form: Any, content: bytes, code: str, row: int | None
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UnusableData) as caught:
        response(path, form)
    assert (caught.value.code, caught.value.row) == (code, row)


def test_a_file_that_changed_has_another_stamp_and_links_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("{}\n")
    with Records(path, "jsonl", LIMITS) as before:
        pass
    path.write_text("{}\n{}\n")
    with Records(path, "jsonl", LIMITS) as after:
        assert (after.stamp == before.stamp, after.size_bytes) == (False, 6)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(UnusableData, match="no file"):
        Records(tmp_path / "link", "jsonl", LIMITS)


def test_a_path_comes_back_from_its_address_whatever_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "two words, 50% and ä.jsonl"
    assert local_path(path.as_uri()) == path
    assert local_path(path.as_uri().replace("file://", "file://localhost")) == path


@pytest.mark.parametrize("uri", ["s3://bucket/x", "/tmp/x", "file://elsewhere/tmp/x", "memory://x", ""])
def test_what_lies_elsewhere_has_no_path_here(uri: str) -> None:
    assert local_path(uri) is None
