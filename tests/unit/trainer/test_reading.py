"""Every way in which a file is no data set ends in a refusal that names the row."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.training import Columns
from services.kit.core.tabular import UnusableData
from services.trainer.domain.spec import Limits, Split
from services.trainer.stages.reading import RawRow, read_rows

GOOD_CSV = b"text,label\nfirst text,a\n"
GOOD_JSON = b'{"text": "first text", "label": "a"}\n'
LIMITS = Limits(max_bytes=5000, max_rows=50, max_text_characters=100)


def rows_of(path: Path, form: str, columns: Columns | None = None) -> list[RawRow]:
    return list(read_rows(path, form, columns or Columns(), LIMITS))  # type: ignore[arg-type]


def error(path: Path, form: str, columns: Columns | None = None) -> UnusableData:
    with pytest.raises(UnusableData) as caught:
        rows_of(path, form, columns)
    return caught.value


@pytest.mark.parametrize(
    ("content", "code", "row"),
    [
        pytest.param(GOOD_CSV + b"one,two,three\n", "ragged_row", 2, id="ragged"),
        pytest.param(GOOD_CSV + b"short\n", "ragged_row", 2, id="too-few-fields"),
        pytest.param(GOOD_CSV + b"a\0b,c\n", "nul_byte", 2, id="NUL"),
        pytest.param(GOOD_CSV + "größe,b\n".encode("latin-1"), "not_utf8", 2, id="mixed-encoding"),
        pytest.param(GOOD_CSV.decode().encode("utf-16"), "not_utf8", 1, id="UTF-16"),
        pytest.param(GOOD_CSV + b'"cut in the mid', "truncated_file", 2, id="truncated"),
        pytest.param(GOOD_CSV + b'"x"y,b\n', "bad_row", 2, id="stray-quote"),
        pytest.param(GOOD_CSV + b"x" * 101 + b",b\n", "text_too_long", 2, id="long-text"),
        pytest.param(GOOD_CSV + b"x," + b"y" * 201 + b"\n", "bad_row", 2, id="long-label"),
        pytest.param(b"text,text\nx,y\n", "bad_row", 1, id="twice-named"),
        pytest.param(b"body,label\nx,y\n", "missing_column", 1, id="missing-column"),
        pytest.param(GOOD_CSV + b"x,y\n" * 60, "too_many_rows", 51, id="too-many"),
        pytest.param(GOOD_CSV + b"x,y\n" * 2000, "too_large_data", None, id="too-large"),
    ],
)
def test_a_broken_csv_is_refused_with_its_row(tmp_path: Path, content: bytes, code: str, row: int | None) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    refused = error(path, "csv")
    assert (refused.code, refused.row) == (code, row)


@pytest.mark.parametrize(
    ("content", "code", "row"),
    [
        pytest.param(GOOD_JSON + b"not json\n", "bad_row", 2, id="not-JSON"),
        pytest.param(GOOD_JSON + b"[1]\n", "bad_row", 2, id="not-an-object"),
        pytest.param(GOOD_JSON + b'{"text": "cut in', "truncated_file", 2, id="truncated"),
        pytest.param(GOOD_JSON + b'{"text": "x"}\n', "missing_column", 2, id="missing-column"),
        pytest.param(GOOD_JSON + b'{"text": ["x"], "label": "b"}\n', "bad_row", 2, id="list-for-text"),
        pytest.param(GOOD_JSON + b'{"text": "x", "label": 1.5}\n', "bad_row", 2, id="fraction-for-label"),
        pytest.param(GOOD_JSON + b"[" * 3000 + b"\n", "bad_row", 2, id="deep"),
        pytest.param(GOOD_JSON + b"\xff\xfe\n", "not_utf8", 2, id="not-UTF-8"),
        pytest.param(b"\x80\x04\x95pickle.\n", "not_utf8", 1, id="pickle"),
    ],
)
def test_broken_json_lines_are_refused_with_their_row(tmp_path: Path, content: bytes, code: str, row: int) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    refused = error(path, "jsonl")
    assert (refused.code, refused.row) == (code, row)


def test_a_missing_file_a_folder_a_pipe_and_an_endless_device_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert error(tmp_path / "nothing", "csv").code == "missing_file"
    assert error(tmp_path, "csv").code == "no_regular_file"
    assert error(tmp_path / "pipe", "csv").code == "no_regular_file"
    assert error(Path("/dev/zero"), "jsonl").code == "no_regular_file"


def test_no_refusal_names_a_path(tmp_path: Path) -> None:
    assert str(tmp_path) not in str(error(tmp_path / "nothing", "csv"))
    assert str(tmp_path) not in str(error(tmp_path, "csv").body())


def test_an_unknown_split_is_refused_and_a_known_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"text,label,part\nx,a,test\ny,b,holdout\n")
    assert error(path, "csv", Columns(split="part")).code == "unknown_split"
    path.write_bytes(b"text,label,part\nx,a,test\ny,b,\n")
    assert [row.split for row in rows_of(path, "csv", Columns(split="part"))] == [Split.TEST, None]


def test_a_quoted_line_break_and_a_byte_order_mark_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b'\xef\xbb\xbftext,label\n"two\nlines",a\n\nlast,7\n')
    assert [(row.number, row.text, row.label) for row in rows_of(path, "csv")] == [
        (1, "two\nlines", "a"),
        (2, "last", "7"),
    ]


@given(content=st.binary(max_size=300), form=st.sampled_from(["csv", "jsonl"]), good=st.booleans())
def test_whatever_the_bytes_are_they_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, form: str, good: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "data"
    path.write_bytes((GOOD_CSV if form == "csv" else GOOD_JSON) * good + content)
    with contextlib.suppress(UnusableData):
        rows_of(path, form)
