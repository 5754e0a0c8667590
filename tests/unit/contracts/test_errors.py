"""A refusal carries a stable code, a message made of its docstring, the field and a hint; and no transport's words."""

import pytest

from services.contracts import errors
from services.contracts.errors import Invalid, Kind, MillraceError, NotFound, Overloaded, TooLarge, Unauthenticated


class UnknownModel(NotFound):
    """There is no model {model}."""

    hint = "'millrace models list' shows those that {tenant} has"
    field = "model"


def kinds() -> list[type[MillraceError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, MillraceError) and MillraceError in value.__bases__
    ]


def test_the_docstring_is_the_message_and_the_facts_fill_it() -> None:
    body = UnknownModel(model="chapters", tenant="default").body()
    assert body.message == "There is no model chapters."
    assert body.hint == "'millrace models list' shows those that default has"
    assert body.field == "model"


def test_the_code_is_the_classs_name_in_snake_case() -> None:
    assert UnknownModel(model="a", tenant="b").code == "unknown_model"
    assert TooLarge(what="it", limit=1).code == "too_large"


def test_one_error_may_name_another_field_and_give_another_hint() -> None:
    error = UnknownModel(model="chapters", tenant="default", field="dataset.model", hint="announce {model} first")
    assert error.body().field == "dataset.model"
    assert error.body().hint == "announce chapters first"


def test_a_wait_that_is_a_fact_is_shown() -> None:
    assert Overloaded(queued=512, retry_after_seconds=2).body().retry_after_seconds == 2.0
    assert Overloaded(queued=512).body().retry_after_seconds is None
    assert Overloaded(queued=512).retryable


@pytest.mark.parametrize("error", kinds(), ids=lambda error: error.__name__)
def test_each_first_level_refusal_has_a_kind_and_a_sentence(error: type[MillraceError]) -> None:
    assert (error.__doc__ or "").strip()
    if error.__name__ not in {"Relayed", "InternalError"}:
        assert error.kind is not Kind.INTERNAL


def test_a_missing_fact_is_a_mistake_of_ours_and_shows_at_once() -> None:
    with pytest.raises(KeyError):
        Invalid()


def test_an_error_tells_no_secret_that_it_was_not_given() -> None:
    body = Unauthenticated().body()
    assert body.code == "unauthenticated"
    assert body.field is None
