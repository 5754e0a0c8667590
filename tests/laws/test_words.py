"""No banned word comes back into an identifier: the counts of those that are left only fall."""

import json
import re
from pathlib import Path

import pytest

from tests.laws.words import (
    COMMAND,
    COUNTS,
    GLOSSARY,
    Ban,
    banned_in,
    bans,
    breaches,
    count,
    folder_of,
    lowered,
    occurrences_here,
    words_of,
)

HERE = Path("services/gateway/planted.py")
TOLD = Ban("told", "word", "the thing")
LINE = Ban("Line", "class", "`ReplicaConnection`")
CUT = Ban("cut", "name", "`slice`")
WIRE = Ban("wire", "module", "`converters`")
ROWS = Ban("rows", "kit module", "`tabular`")
SIGHT = Ban("first_sight", "word", "`mark_processed`")
BANNED = [TOLD, LINE, CUT, WIRE, ROWS, SIGHT]


def test_no_banned_word_comes_back_and_the_counts_are_those_that_are_left() -> None:
    caught = list(breaches(occurrences_here(), json.loads(COUNTS.read_text())))
    assert not caught, "\n".join(caught)


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


def test_a_count_that_rises_fails_and_names_each_place() -> None:
    occurrences = list(banned_in(HERE, "told = 1\nx = 2\ntold = 3", BANNED))
    caught = list(breaches(occurrences, {"told (word)": {"services/gateway": 1}}))
    assert caught[0].startswith("told (word) in services/gateway: 2 times, and 1 are left")
    assert [line.split()[0] for line in caught[1:]] == [f"{HERE}:1", f"{HERE}:3"]
    assert "instead: the thing" in caught[1]


def test_a_word_that_is_gone_may_not_return_at_all() -> None:
    occurrences = list(banned_in(HERE, "class Line: ...", BANNED))
    assert next(breaches(occurrences, {})).startswith("Line (class) in services/gateway: 1 times, and 0 are left")
    elsewhere = {"Line (class)": {"services/registry": 5}}
    assert len(list(breaches(occurrences, elsewhere))) == 3  # risen here with its place, and fallen there


def test_a_count_that_falls_fails_until_the_file_is_lowered_and_the_command_is_named() -> None:
    occurrences = list(banned_in(HERE, "told = 1", BANNED))
    allowed = {"told (word)": {"services/gateway": 2, "tests/unit": 1}}
    caught = list(breaches(occurrences, allowed))
    assert len(caught) == 2
    assert all(COMMAND in line for line in caught)
    fewer = lowered(count(occurrences), allowed)
    assert fewer == {"told (word)": {"services/gateway": 1}}
    assert list(breaches(occurrences, fewer)) == []


def test_lowering_raises_no_count() -> None:
    occurrences = list(banned_in(HERE, "told = 1\ntold = 2\nclass Line: ...", BANNED))
    assert lowered(count(occurrences), {"told (word)": {"services/gateway": 1}}) == {
        "told (word)": {"services/gateway": 1}
    }


def test_counts_are_kept_by_service_and_by_folder_of_tests() -> None:
    paths = [
        "services/kit/core/ids.py",
        "services/__init__.py",
        "tests/unit/cli/x.py",
        "tests/waiting.py",
        "bench/a/b.py",
    ]
    assert [folder_of(Path(path)) for path in paths] == ["services/kit", "services", "tests/unit", "tests", "bench"]


@pytest.mark.parametrize(
    "row", ["| told | word | x |", "| `told` | verb | x |", "| `told` | word |", "| `a b` | word | x |"]
)
def test_a_row_of_the_table_that_cannot_be_read_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match="not a row"):
        bans(f"## Banned identifiers\n\n| identifier | kind | instead |\n|---|---|---|\n{row}\n")
