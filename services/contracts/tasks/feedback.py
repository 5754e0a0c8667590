"""What somebody says of an answer, and of which item of a request it is said."""

import re
from typing import Final, Self

from pydantic import ConfigDict, Field, model_validator

from services.contracts.names import Label
from services.contracts.training import Fact

BEST_RATING: Final = 5
KINDS: Final = ("label", "rating", "score", "reference")
_NAMED_ITEM: Final = re.compile(r"(?P<request>.+):(?P<item>0|[1-9]\d{0,4})")


class Feedback(Fact):
    """Exactly one judgement of an answer."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [kind]} for kind in KINDS]})

    label: Label | None = Field(default=None, description="the right label")
    rating: int | None = Field(default=None, ge=1, le=BEST_RATING, description="1, useless, to 5, as good as can be")
    score: float | None = Field(default=None, ge=0, le=1, description="0, wrong, to 1, right")
    reference: str | None = Field(default=None, min_length=1, max_length=20_000, description="the right answer")

    @model_validator(mode="after")
    def _one_judgement(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"exactly one of {', '.join(KINDS)} is needed")
        return self

    @property
    def grade(self) -> float | None:
        """A rating or a score as 0 to 1, which judges an answer of any task; None for what needs the task to judge."""
        if self.rating is not None:
            return (self.rating - 1) / (BEST_RATING - 1)
        return self.score


def item_key(request: str, item: int = 0) -> str:
    """The name of one item of a request: the request's own for the first, `request:item` for the others.

    What names the first as `request:0` means the same, so both lead to one key.
    """
    name = request if item == 0 else f"{request}:{item}"
    return name.removesuffix(":0") or name


def item_keys(request: str, count: int) -> list[str]:
    return [item_key(request, item) for item in range(count)]


def requests_of(key: str) -> list[tuple[str, int]]:
    """The requests, each with the item, that a key may name: an id may end in a colon and a number of its own."""
    named = _NAMED_ITEM.fullmatch(key)
    return [(key, 0), (f"{key}:0", 0)] + ([(named["request"], int(named["item"]))] if named else [])
