"""Windows of different inputs."""

import base64
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.artifact import Precision
from services.monitor.domain.windows import (
    WIDEST_EMBEDDING,
    Arrival,
    OpenWindow,
    Sample,
    decode_embedding,
    encode_embedding,
    fill,
    read_embedding,
    rows_of,
    text_key,
)

AT = datetime(2026, 11, 1, tzinfo=UTC)


def arrival(request: str, text: str | None = "", row: list[float] | None = None) -> Arrival:
    key = text_key(text or request) if text is not None else None
    embedding = np.array(row or [1.0, 0.0], dtype=np.float32)
    return Arrival(request, Precision.INT8, Sample(request=request, at=AT, embedding_D=embedding, text_key=key))


def test_a_window_closes_when_it_is_full_and_counts_every_request() -> None:
    arrivals = [
        arrival("r1"),
        Arrival("r2", Precision.INT8),
        arrival("r3"),
        Arrival("r4", Precision.INT8),
        arrival("r5"),
    ]
    filled = fill(OpenWindow(number=4), arrivals, rows=2, next_window=6)
    assert [(window.number, window.answered, len(window.samples)) for window in filled.closed] == [(4, 3, 2)]
    assert (filled.open.number, filled.open.answered, len(filled.open.samples)) == (6, 2, 1)
    assert filled.next_window == 7


def test_a_repeated_text_stays_out() -> None:
    filled = fill(
        OpenWindow(number=1), [arrival("r1", "Some  Text"), arrival("r2", "some text")], rows=5, next_window=2
    )
    assert len(filled.open.samples) == 1
    assert filled.repeated == 1
    assert filled.open.answered == 2


def test_a_repeated_request_stays_out() -> None:
    filled = fill(OpenWindow(number=1), [arrival("r1", "one"), arrival("r1", "two")], rows=5, next_window=2)
    assert len(filled.open.samples) == 1


def test_without_its_text_an_input_is_known_by_its_embedding() -> None:
    arrivals = [arrival("r1", None, [1, 0]), arrival("r2", None, [2, 0.001]), arrival("r3", None, [0, 1])]
    filled = fill(OpenWindow(number=1), arrivals, rows=5, next_window=2)
    assert [sample.request for sample in filled.open.samples] == ["r1", "r3"]


def test_an_embedding_of_another_width_stays_out() -> None:
    filled = fill(OpenWindow(number=1), [arrival("r1"), arrival("r2", "", [1, 2, 3])], rows=5, next_window=2)
    assert len(filled.open.samples) == 1
    assert filled.repeated == 1


def test_a_text_of_an_earlier_batch_stays_out() -> None:
    first = fill(OpenWindow(number=1), [arrival("r1", "some text")], rows=5, next_window=2)
    second = fill(first.open, [arrival("r2", "Some text"), arrival("r3", "other")], rows=5, next_window=2)
    assert [sample.request for sample in second.open.samples] == ["r1", "r3"]
    assert second.repeated == 1


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 7), st.integers(0, 60))
def test_filling_in_two_goes_equals_filling_in_one(requests: list[int], rows: int, middle: int) -> None:
    arrivals = [arrival(f"r{number}") for number in requests]
    in_one = fill(OpenWindow(number=1), arrivals, rows, next_window=2)
    first = fill(OpenWindow(number=1), arrivals[:middle], rows, next_window=2)
    second = fill(first.open, arrivals[middle:], rows, next_window=first.next_window)
    assert first.closed + second.closed == in_one.closed
    assert second.open == in_one.open


def test_an_embedding_survives_the_wire_and_the_table() -> None:
    row = np.array([0.5, -0.25, 0.125], dtype=np.float32)
    decoded = decode_embedding(base64.b64encode(row.astype("<f2").tobytes()).decode())
    assert decoded is not None
    assert (read_embedding(encode_embedding(decoded)) == row).all()


def test_the_rows_of_a_window_keep_their_order() -> None:
    filled = fill(OpenWindow(number=1), [arrival("r1", "", [1, 0]), arrival("r2", "", [0, 1])], rows=5, next_window=2)
    assert rows_of(filled.open.samples).tolist() == [[1, 0], [0, 1]]
    assert rows_of(()).shape == (0, 0)


def test_an_embedding_may_be_as_wide_as_the_limit() -> None:
    widest = np.zeros(WIDEST_EMBEDDING, dtype="<f2")
    decoded = decode_embedding(base64.b64encode(widest.tobytes()).decode())
    assert decoded is not None
    assert decoded.shape == (WIDEST_EMBEDDING,)
    assert decode_embedding(base64.b64encode(widest.tobytes() + b"\0\0").decode()) is None


@pytest.mark.parametrize(
    "encoded", ["", "!!!", "AAA", base64.b64encode(b"abc").decode(), "AHw=", "A" * 40_000, "\N{SNOWMAN}"]
)
def test_what_is_no_embedding_is_none(encoded: str) -> None:
    assert decode_embedding(encoded) is None
