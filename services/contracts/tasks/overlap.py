"""How much two texts have in common, word by word."""

import re
from collections.abc import Sequence
from typing import Final

_WORD: Final = re.compile(r"\w+")
MAX_WORDS: Final = 2_000
"""Read of each text: the comparison takes time by the product of both lengths."""


def rouge_l(answer: str, reference: str) -> float:
    """The F1 of the longest common subsequence of words, 0 to 1; 1 where neither text has a word.

    Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004), section 3, with beta 1 and lower case.
    """
    left, right = _words(answer), _words(reference)
    if not left or not right:
        return float(left == right)
    common = _longest_common_subsequence(left, right)
    return 2 * common / (len(left) + len(right))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())[:MAX_WORDS]


def _longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    lengths = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for number, other in enumerate(right, 1):
            above = lengths[number]
            lengths[number] = diagonal + 1 if word == other else max(above, lengths[number - 1])
            diagonal = above
    return lengths[-1]
