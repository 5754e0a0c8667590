"""A refusal on a stream: the same before and after."""

import pytest

from services.contracts.errors import (
    BadField,
    ErrorBody,
    InternalError,
    Kind,
    MillraceError,
    Overloaded,
    Relayed,
    Unavailable,
)
from services.contracts.rpc import inference_pb2
from services.kit.transport.failures import from_failure, to_failure


@pytest.mark.parametrize(
    "error",
    [
        BadField(name="texts", problem="no", field="texts"),
        Overloaded(queued=3, retry_after_seconds=2.5),
        Unavailable(what="it"),
        InternalError(),
        Relayed(Kind.TOO_LARGE, ErrorBody(code="text_too_long", message="m", field="texts[1]", hint="h")),
    ],
    ids=lambda error: error.code,
)
def test_a_refusal_is_the_same_on_the_other_side(error: MillraceError) -> None:
    back = from_failure(to_failure(error))
    sent, came = error.body(), back.body()
    assert (back.kind, back.code, str(back)) == (error.kind, error.code, str(error))
    assert (came.field, came.hint, back.retry_after) == (sent.field, sent.hint, error.retry_after)


def test_what_may_pass_always_says_when_and_what_may_not_never_does() -> None:
    assert to_failure(Overloaded(queued=3)).retry_after_seconds == 1.0
    assert to_failure(BadField(name="a", problem="b")).retry_after_seconds == 0.0


def test_a_kind_of_tomorrow_is_an_error_inside() -> None:
    assert from_failure(inference_pb2.Failure(kind="haunted", code="ghost")).kind is Kind.INTERNAL
