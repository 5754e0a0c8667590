"""No banned word stands in an identifier."""

import re
from pathlib import Path

import pytest

from tests.laws.source import ROOT
from tests.laws.words import GLOSSARY, WIRE_FIELDS, Ban, banned_in, bans, described, occurrences_here, words_of

HERE = Path("services/gateway/planted.py")
WORD = Ban("told", "word", "the thing")
LINE = Ban("Line", "class", "`ReplicaConnection`")
CUT = Ban("cut", "name", "`slice`")
WIRE = Ban("wire", "module", "`converters`")
ROWS = Ban("rows", "kit module", "`tabular`")
SIGHT = Ban("first_sight", "word", "`mark_processed`")
BANNED = [WORD, LINE, CUT, WIRE, ROWS, SIGHT]


def test_no_identifier_holds_a_banned_word() -> None:
    caught = [described(ban, defined) for ban, defined in occurrences_here()]
    assert not caught, "\n".join(caught)


def test_a_breach_is_shown_with_its_line_and_with_the_word_instead() -> None:
    ((ban, defined),) = banned_in(HERE, "X = 1\nclass Line: ...", BANNED)
    assert described(ban, defined) == (
        "services/gateway/planted.py:2 Line holds what is banned, Line (class); instead: `ReplicaConnection`"
    )


def test_a_field_that_clients_send_by_a_banned_word_is_let_through_where_it_is_declared_alone() -> None:
    banned = [Ban("whole", "word", "`truncate=False`")]
    for name, paths in WIRE_FIELDS.items():
        assert all(f" {name}: " in (ROOT / path).read_text() for path in paths)
        assert list(banned_in(next(iter(paths)), f"{name} = 1", banned)) == []
        assert len(list(banned_in(HERE, f"{name} = 1", banned))) == 1


def test_the_glossary_bans_each_identifier_once_and_has_a_word_instead() -> None:
    banned = bans(GLOSSARY.read_text())
    keys = [ban.key for ban in banned]
    assert len(keys) > 100
    assert len(set(keys)) == len(keys)
    assert all(ban.instead.strip() for ban in banned)


def test_the_glossary_has_each_term_once_and_none_that_it_bans() -> None:
    text = GLOSSARY.read_text()
    terms = re.findall(r"^\| ([^|`]+) \| .+ \|$", text.partition("## Banned")[0], re.MULTILINE)
    words = [term.strip() for row in terms if row != "word" for term in re.sub(r"\(.*\)", "", row).split(",")]
    assert len(words) > 80
    assert sorted({word for word in words if words.count(word) > 1}) == []
    banned = {ban.identifier for ban in bans(text) if ban.kind == "word"}
    assert sorted(word for word in words if banned & set(words_of(word))) == []


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("class ToldOnce: ...", "ToldOnce", 1),
        ("class Line: ...", "Line", 1),
        ("class _Line: ...", "_Line", 1),
        ("def tell_told() -> None: ...", "tell_told", 1),
        ("async def cut() -> None: ...", "cut", 1),
        ("def f(*, told: int) -> None: ...", "told", 1),
        ("def f(*told: int) -> None: ...", "told", 1),
        ("F = lambda cut: 1", "cut", 1),
        ("X = 1\ntold = 2", "told", 2),
        ("TOLD: int", "TOLD", 1),
        ("a, (cut, b) = 1, (2, 3)", "cut", 1),
        ("for told in (1, 2): ...", "told", 1),
        ("X = [1 for cut in (1, 2)]", "cut", 1),
        ("if (told := 3): ...", "told", 1),
        ("with open('x') as told: ...", "told", 1),
        ("try: ...\nexcept OSError as told: ...", "told", 2),
        ("import json as told", "told", 1),
        ("from json import loads as cut", "cut", 1),
        ("class A:\n    def f(self) -> None:\n        self._told = 1", "_told", 3),
        ("class A:\n    cut: int = 1", "cut", 2),
        ("match 1:\n    case [told]: ...", "told", 2),
        ("match {}:\n    case {'a': 1, **told}: ...", "told", 2),
        ("match []:\n    case [1, *told]: ...", "told", 2),
        ("async def first_sight_again() -> None: ...", "first_sight_again", 1),
        ("class FirstSight: ...", "FirstSight", 1),
    ],
)
def test_a_banned_word_that_is_defined_anywhere_is_caught(text: str, name: str, line: int) -> None:
    ((_, defined),) = banned_in(HERE, text, BANNED)
    assert (defined.name, defined.line) == (name, line)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("services/gateway/inbound/wire.py", "wire"),
        ("services/gateway/wire/__init__.py", "wire"),
        ("services/kit/core/rows.py", "rows"),
        ("services/gateway/told_again.py", "told_again"),
    ],
)
def test_a_module_of_a_banned_name_is_caught(path: str, name: str) -> None:
    ((_, defined),) = banned_in(Path(path), "", BANNED)
    assert (defined.name, defined.kind) == (name, "module")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (HERE, "from x import told\n\nprint(told, told.cut, f(cut=1))"),
        (HERE, "class OutputLine: ...\n\n\nline = 1\nshort_cut = 2\nsights_first = 3\ntolds = 4"),
        (HERE, "class cut: ...\n\n\nwire = 1"),
        (Path("services/gateway/domain/rows.py"), ""),
        (HERE, "X = 'told'  # told"),
    ],
)
def test_what_is_used_or_only_looks_alike_is_let_through(path: Path, text: str) -> None:
    assert list(banned_in(path, text, BANNED)) == []


@pytest.mark.parametrize(
    "row", ["| told | word | x |", "| `told` | verb | x |", "| `told` | word |", "| `a b` | word | x |"]
)
def test_a_row_of_the_table_that_cannot_be_read_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match="not a row"):
        bans(f"## Banned identifiers\n\n| identifier | kind | instead |\n|---|---|---|\n{row}\n")
