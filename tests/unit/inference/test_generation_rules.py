"""Stop texts, shared beginnings of prompts, and which sequence may begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.domain.admission import Admission, Budget
from services.inference.domain.prefixes import PrefixCache
from services.inference.domain.stopping import StopTexts
from services.inference.errors import QueueFull

# --- stop texts


def shown(stops: list[str], *parts: str) -> tuple[str, bool]:
    texts = StopTexts(stops)
    return "".join(texts.push(part) for part in parts) + ("" if texts.stopped else texts.flush()), texts.stopped


@pytest.mark.parametrize(
    ("parts", "text", "stopped"),
    [
        (("one END two",), "one ", True),
        (("one E", "N", "D two"), "one ", True),
        (("one E", "N", "X"), "one ENX", False),
        (("EEN", "D"), "E", True),
        (("a", "b"), "ab", False),
        (("one EN",), "one EN", False),
    ],
)
def test_an_answer_ends_before_a_stop_text_wherever_its_tokens_part_it(
    parts: tuple[str, ...], text: str, stopped: bool
) -> None:
    assert shown(["END"], *parts) == (text, stopped)


def test_the_stop_text_that_comes_first_counts() -> None:
    assert shown(["zz", "a"], "xazz") == ("x", True)


def test_text_that_cannot_be_part_of_a_stop_text_is_not_held_back() -> None:
    texts = StopTexts(["\n\n"])
    assert texts.push("a line\n") == "a line"
    assert texts.push("another") == "\nanother"


@given(st.lists(st.text("ab", max_size=4), max_size=8), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_nothing_but_the_text_before_the_first_stop_text_is_shown(parts: list[str], stops: list[str]) -> None:
    full = "".join(parts)
    ends = [index for stop in stops if (index := full.find(stop)) >= 0]
    assert shown(stops, *parts) == (full[: min(ends)] if ends else full, bool(ends))


# --- shared beginnings


def test_the_longest_shared_beginning_is_found() -> None:
    cache: PrefixCache[str] = PrefixCache(100)
    cache.add([*range(20), 91, 92], "long")
    cache.add([*range(10), *range(50, 60)], "short")
    prefix = cache.find([*range(15), 7, 7, 7])
    assert prefix is not None
    assert (prefix.value, prefix.length) == ("long", 15)


def test_the_last_two_tokens_are_always_computed() -> None:
    cache: PrefixCache[str] = PrefixCache(100)
    cache.add(range(20), "all")
    prefix = cache.find(range(20))
    assert prefix is not None
    assert prefix.length == 18


def test_a_short_beginning_is_not_worth_a_copy() -> None:
    cache: PrefixCache[str] = PrefixCache(100)
    cache.add(range(20), "all")
    assert cache.find([*range(7), *range(90, 99)]) is None
    assert cache.find([0]) is None


def test_the_one_that_was_used_longest_ago_goes_first() -> None:
    cache: PrefixCache[str] = PrefixCache(40)
    cache.add(range(20), "first")
    cache.add(range(100, 120), "second")
    assert cache.find(range(15)) is not None
    cache.add(range(200, 220), "third")
    assert cache.find(range(100, 115)) is None
    assert cache.find(range(15)) is not None


def test_a_prompt_that_goes_on_replaces_its_beginning_and_one_that_is_known_adds_nothing() -> None:
    cache: PrefixCache[str] = PrefixCache(50)
    cache.add(range(20), "turn 1")
    assert not cache.needs(range(12))
    assert cache.needs(range(30))
    cache.add(range(30), "turn 2")
    cache.add(range(100, 120), "other")  # would not fit beside both turns
    prefix = cache.find(range(25))
    assert prefix is not None
    assert prefix.value == "turn 2"


def test_a_prompt_longer_than_the_cache_is_not_taken() -> None:
    cache: PrefixCache[str] = PrefixCache(10)
    assert not cache.needs(range(11))
    assert cache.needs(range(10))
    assert not PrefixCache(0).needs(range(10))


# --- admission


def admission(rows: int = 2, tokens: int = 100, waiting: int = 3) -> Admission[int]:
    """Sequences are their own sizes."""
    return Admission(Budget(rows=rows, tokens=tokens, waiting=waiting), size=lambda size: size)


def test_sequences_begin_in_their_order_while_rows_and_tokens_last() -> None:
    queue = admission()
    queue.submit([60, 50, 10])
    assert queue.begin() == 60
    assert queue.begin() is None, "50 more tokens do not fit, and 10 does not pass it by"
    queue.end(60)
    assert (queue.begin(), queue.begin(), queue.begin()) == (50, 10, None)
    assert (queue.held, queue.reserved_tokens) == (2, 60)


def test_no_more_begin_than_there_are_rows() -> None:
    queue = admission(rows=2)
    queue.submit([1, 2, 3])
    assert (queue.begin(), queue.begin(), queue.begin()) == (1, 2, None)


def test_all_of_a_request_waits_or_none_of_it() -> None:
    queue = admission(waiting=3)
    queue.submit([1, 1])
    with pytest.raises(QueueFull):
        queue.submit([1, 1])
    assert queue.waiting == 2


def test_what_is_over_leaves_the_queue() -> None:
    queue = admission()
    queue.submit([1, 2, 3])
    assert queue.remove(lambda size: size > 1) == [2, 3]
    assert queue.waiting == 1
