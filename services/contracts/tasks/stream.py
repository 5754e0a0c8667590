"""What an answer consists of on its way: any number of deltas, then one result; or a refusal, which is raised."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Delta:
    """A chunk of an answer, encoded by its task, and who gives it, where that is known."""

    payload: bytes
    version: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The whole answer, encoded by its task, and who gave it."""

    payload: bytes
    model: str
    version: int
    tokens: int


PredictEvent: TypeAlias = Delta | Result
