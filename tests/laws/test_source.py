"""The laws of the source that no linter knows, each shown to catch a planted breach."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.laws import source
from tests.laws.source import ROOT, python_sources, text_files

Law = Callable[[Path, str], Iterator[str]]

# The laws' own words stand in these files, and the licence is nobody's prose.
EXEMPT = {Path(f"tests/laws/{name}.py") for name in ("source", "test_source", "test_tools_catch")} | {Path("LICENSE")}

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 41


def holds(law: Law, files: list[Path]) -> None:
    match = [breach for path in files if path not in EXEMPT for breach in law(path, (ROOT / path).read_text())]
    assert not match, "\n".join(match)


def test_no_file_is_longer_than_400_lines_and_no_function_than_40() -> None:
    holds(source.too_long, python_sources())


def test_nothing_is_named_after_nothing() -> None:
    holds(source.vaguely_named, python_sources())


def test_nothing_is_left_for_later() -> None:
    holds(source.left_for_later, text_files())


def test_nothing_reads_or_writes_a_pickle() -> None:
    holds(source.pickles, [path for path in python_sources() if path.parts[0] != "tests"])


def test_no_file_names_a_host_that_packages_come_from() -> None:
    holds(source.names_a_host, text_files())


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    holds(source.names_a_machine, text_files())


def test_no_test_replaces_a_part_by_its_import_path() -> None:
    holds(source.patches, [path for path in python_sources() if path.parts[0] == "tests"])


@pytest.mark.parametrize(
    ("law", "name", "text"),
    [
        (source.too_long, "services/kit/a.py", "x = 1\n" * 401),
        (source.too_long, "services/kit/a.py", LONG_FUNCTION),
        (source.too_long, "services/kit/a.py", "class A:\n    async " + LONG_FUNCTION.replace("\n", "\n    ")),
        (source.vaguely_named, "services/kit/utils.py", ""),
        (source.vaguely_named, "services/kit/a.py", "class RunManager: ..."),
        (source.left_for_later, "README.md", "TODO: say more"),
        (source.left_for_later, "services/kit/a.py", "x = 1  # FIXME"),
        (source.pickles, "services/kit/a.py", "import pickle"),
        (source.pickles, "services/kit/a.py", "from joblib import load"),
        (source.pickles, "services/kit/a.py", "    numpy.load(path, allow_pickle=True)"),
        (source.pickles, "services/kit/a.py", "state = torch.load(path)"),
        (source.names_a_host, "Makefile", "pip install -i https://pypi" + ".org/simple x"),
        (source.names_a_host, "deploy/a.Dockerfile", "FROM docker.io/library/python"),
        (source.names_a_machine, "docs/a.md", "see /root/notes"),
        (source.patches, "tests/a.py", "from unittest import mock"),
        (source.patches, "tests/a.py", "monkeypatch.setattr('services.kit.core.clock.now', f)"),
    ],
)
def test_a_planted_breach_is_caught(law: Law, name: str, text: str) -> None:
    assert len(list(law(Path(name), text))) == 1


@pytest.mark.parametrize(
    ("law", "text"),
    [
        (source.too_long, 'def f():\n    """One.\n' + "    line\n" * 60 + '    """\n    return 1\n'),
        (source.names_a_machine, "http://localhost/work/items ./root/x https://example.org/root/"),
        (source.pickles, "the module pickle is not imported"),
    ],
)
def test_what_only_looks_like_a_breach_is_let_through(law: Law, text: str) -> None:
    assert list(law(Path("services/kit/a.py"), text)) == []
