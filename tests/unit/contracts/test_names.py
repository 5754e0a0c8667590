"""Names that cross rooms are safe in a path, a topic's key and a URL; anything else is refused."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.contracts.names import NAME_PATTERN, Identifier, Label, Name, Sha256, VersionNumber

NAME: TypeAdapter[str] = TypeAdapter(Name)
IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


@given(st.from_regex(NAME_PATTERN, fullmatch=True))
def test_a_name_needs_no_escaping_in_a_path_or_a_url(name: str) -> None:
    assert NAME.validate_python(name) == name
    assert quote(name, safe="") == name
    assert "/" not in name
    assert name not in {".", ".."}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-a",
        "a-",
        ".a",
        "a.",
        "_a",
        "A",
        "a b",
        "a/b",
        "../a",
        "a%2fb",
        "a\x00",
        "a\n",
        "é",
        "a" * 64,
        "a\u200bb",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(name)


def test_a_name_may_have_63_letters_and_one() -> None:
    assert NAME.validate_python("a" * 63)
    assert NAME.validate_python("a")


@pytest.mark.parametrize("identifier", ["", "-a", "a/b", "a b", "a" * 129, "a\n", "é", "../a"])
def test_what_is_no_identifier_is_refused(identifier: str) -> None:
    with pytest.raises(ValidationError):
        IDENTIFIER.validate_python(identifier)


@pytest.mark.parametrize("digest", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_what_is_no_sha256_is_refused(digest: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Sha256).validate_python(digest)


@pytest.mark.parametrize("number", [0, -1, 1.5, "x", None])
def test_versions_count_from_one(number: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(VersionNumber).validate_python(number)


@pytest.mark.parametrize("label", ["", "a" * 201])
def test_a_label_is_neither_empty_nor_endless(label: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Label).validate_python(label)
