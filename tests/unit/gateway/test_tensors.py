"""Tensors as bytes, and what is refused of them."""

import struct
from array import array
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import BadField, MillraceError
from services.gateway.inbound.oip.tensors import count_texts, pack_floats, pack_strings, unpack_strings

T = TypeVar("T")
INT64 = st.integers(-(2**63), 2**63 - 1)


def outcome(read: Callable[[], T]) -> T | MillraceError:
    try:
        return read()
    except MillraceError as error:
        return error


@given(st.lists(st.text(max_size=30), max_size=64))
def test_strings_come_back_from_their_bytes(strings: list[str]) -> None:
    raw = pack_strings(strings)
    assert unpack_strings(raw, len(strings), "data") == strings
    assert unpack_strings(memoryview(raw), len(strings), "data") == strings


def test_a_string_is_its_length_in_little_endian_and_its_utf8() -> None:
    assert pack_strings(["é", ""]) == b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00"


def test_floats_are_four_little_endian_bytes_each() -> None:
    assert pack_floats(array("f", [0.5, -2.0])) == struct.pack("<2f", 0.5, -2.0)


@given(st.binary(max_size=200), st.integers(0, 64))
def test_no_bytes_whatsoever_break_the_reader_and_each_refusal_names_the_field(raw: bytes, count: int) -> None:
    came = outcome(lambda: unpack_strings(raw, count, "inputs[0].data"))
    if isinstance(came, MillraceError):
        assert came.body().field == "inputs[0].data"
    else:
        assert pack_strings(came) == raw, "what was read is all that was sent"


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.data())
def test_a_byte_more_or_fewer_is_refused(strings: list[str], data: st.DataObject) -> None:
    raw = pack_strings(strings)
    offset = data.draw(st.integers(0, len(raw) - 1))
    for changed in (raw[:offset], raw + b"\x00"):
        with pytest.raises(BadField):
            unpack_strings(changed, len(strings), "data")


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 5])
def test_a_length_that_lies_allocates_nothing(length: int) -> None:
    with pytest.raises(BadField, match="longer than the bytes that are left"):
        unpack_strings(struct.pack("<I", length) + b"four", 1, "data")


@pytest.mark.parametrize("shape", [[1], [64], [3, 1], (2,)])
def test_n_texts_are_n_or_n_by_1(shape: list[int]) -> None:
    assert count_texts(shape, "shape") == shape[0]


@pytest.mark.parametrize(
    "shape",
    [
        [],
        [0],
        [65],
        [-1],
        [1, 2],
        [2, 0],
        [1, 1, 1],
        [2**62, 4],
        [2**63 - 1],
        [-(2**63)],
        [-2, -1],
        [2**32, 2**32],
        [1, -1],
        [2**33 + 1, 1],
    ],
)
def test_any_other_shape_is_refused_and_named(shape: list[int]) -> None:
    with pytest.raises(BadField) as refused:
        count_texts(shape, "inputs[0].shape")
    assert refused.value.field == "inputs[0].shape"


@given(st.lists(INT64, max_size=5))
def test_no_shape_whatsoever_gives_more_texts_than_the_largest_batch(shape: list[int]) -> None:
    came = outcome(lambda: count_texts(shape, "shape"))
    assert came.field == "shape" if isinstance(came, MillraceError) else 1 <= came <= 64
