"""Near duplicates among short texts.

Two texts are near duplicates when the cosine of their binary vectors of words and word pairs is at
least a threshold: |A and B| / sqrt(|A| |B|). Found exactly, by prefix filtering (Bayardo, Ma and Srikant,
"Scaling up all pairs similarity search", WWW 2007): a pair above the threshold shares one of its rarest terms.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

NEAR: Final = 0.8
_WORD: Final = re.compile(r"\w+")


def normalised(text: str) -> str:
    """Lower-cased words joined by single blanks: two texts equal here are exact duplicates."""
    return " ".join(_WORD.findall(text.lower()))


def first_likes(texts: Sequence[str], threshold: float = NEAR) -> list[int | None]:
    """For each text the index of an earlier kept text that it nearly repeats, or None when it is kept itself.

    A text without any word repeats nothing.
    """
    terms = [_terms(text) for text in texts]
    rarity = Counter(term for document in terms for term in document)
    ordered = [sorted(document, key=lambda term: (rarity[term], term)) for document in terms]
    postings: defaultdict[str, list[int]] = defaultdict(list)
    likes: list[int | None] = []
    for index, document in enumerate(ordered):
        prefix = document[: _prefix_length(len(document), threshold)]
        candidates = sorted({earlier for term in prefix for earlier in postings[term]})
        like = next((other for other in candidates if _cosine(terms[index], terms[other]) >= threshold), None)
        likes.append(like)
        if like is None:
            for term in prefix:
                postings[term].append(index)
    return likes


def _terms(text: str) -> frozenset[str]:
    words = normalised(text).split()
    return frozenset(words) | {f"{left} {right}" for left, right in pairwise(words)}


def _prefix_length(size: int, threshold: float) -> int:
    """How many of the rarest terms suffice: the smallest possible partner must share threshold^2 * size terms."""
    needed = math.ceil(threshold * threshold * size - 1e-9)  # 0.8 * 0.8 * 25 is a little more than 16
    return size - needed + 1 if size else 0


def _cosine(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / math.sqrt(len(left) * len(right)) if left and right else 0.0
