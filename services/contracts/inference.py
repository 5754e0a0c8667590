"""What an answer by event says: the labels of each text, or why there are none."""

from pydantic import Field

from services.contracts.names import Label
from services.contracts.training import Fact


class ScoredLabel(Fact):
    label: Label
    score: float


class TextLabelled(Fact):
    """The likeliest label of one text, and the labels' probabilities, the likeliest first."""

    label: Label
    score: float
    scores: list[ScoredLabel]


class RequestFailure(Fact):
    """Why a request was not answered; the same words as at every door."""

    code: str = Field(description="stable, for programs: unknown_deployment, bad_field, request_expired, ...")
    message: str
    field: str | None = None
    hint: str | None = None
    retryable: bool = Field(description="the same request may be answered if it is sent again")
