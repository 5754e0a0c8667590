"""Near duplicates, against the definition worked out pair by pair."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.kit.core.duplicates import NEAR, first_likes, normalised

words = st.lists(st.sampled_from("abcdefg"), max_size=9).map(" ".join)


def terms(text: str) -> set[str]:
    match = normalised(text).split()
    return set(match) | {f"{a} {b}" for a, b in pairwise(match)}


def by_definition(texts: list[str]) -> list[int | None]:
    likes: list[int | None] = []
    for index, text in enumerate(texts):
        mine = terms(text)
        near = (
            other
            for other in range(index)
            if likes[other] is None
            and mine
            and (yours := terms(texts[other]))
            and len(mine & yours) / math.sqrt(len(mine) * len(yours)) >= NEAR
        )
        likes.append(next(near, None))
    return likes


@given(st.lists(words, max_size=14))
def test_every_near_duplicate_is_found_and_nothing_else(texts: list[str]) -> None:
    assert first_likes(texts) == by_definition(texts)


def test_a_pair_exactly_at_the_threshold_is_found() -> None:
    """16 of 25 terms shared: the cosine is 0.8, and 0.8 * 0.8 * 25 is a little more than 16 in floating point."""
    short = "a b c d e f g h"
    shared = terms(short)
    one_more = "a b c d e f g h i"
    longer = one_more + " j k l m"
    assert (len(shared), len(terms(longer))) == (15, 25)
    texts = [longer, one_more, short]
    assert first_likes(texts) == by_definition(texts)
    sixteen = "a b c d e f g h a"
    assert len(terms(sixteen)) == 16
    both = f"{sixteen} x y z v" + " w"
    texts = [sixteen, both]
    assert first_likes(texts) == by_definition(texts)


def test_case_and_punctuation_do_not_hide_a_copy() -> None:
    assert first_likes(["Return the path, joined.", "return THE path joined", "", "!!", ""]) == [
        None,
        0,
        None,
        None,
        None,
    ]
