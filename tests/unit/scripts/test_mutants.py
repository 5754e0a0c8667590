"""The runner tells mutants that tests notice from those that survive, on a small project with one hole in its tests."""

import json
from pathlib import Path

import pytest

from scripts.mutants import KILLED, SURVIVED, TIMED_OUT, BaselineFailed, Rate, Result, Runner, as_json, rates
from scripts.mutators import Mutant

SOURCE = """def fee(amount, member):
    if member and amount > 100:
        return 0
    return 5


def countdown(number):
    while number > 0:
        number -= 1
    return number
"""
TEST = """from tests.helpers import countdown, fee


def test_a_member_pays_nothing_for_much():
    assert fee(200, True) == 0
    assert fee(200, False) == 5
    assert fee(50, True) == 5


def test_the_end_is_reached():
    assert countdown(2) == 0
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # what is installed here takes seconds to load
    for root in (tmp_path / "root", tmp_path / "copy"):
        (root / "domain").mkdir(parents=True)
        (root / "tests").mkdir()
        (root / "domain/fees.py").write_text(SOURCE)
        (root / "tests/helpers.py").write_text("from domain.fees import countdown, fee\n")
        (root / "tests/test_fees.py").write_text(TEST)
        (root / "tests/test_else.py").write_text("def test_else(): pass\n")
        (root / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    return Runner(tmp_path / "root", tmp_path / "copy", {"domain": ["tests"]}, grace_seconds=2.0)


def mutant_of(runner: Runner, operator: str, line: int) -> Mutant:
    return next(one for one in runner.mutants() if (one.operator, one.line) == (operator, line))


@pytest.mark.slow
def test_a_mutant_is_killed_survives_or_hangs_and_neither_tree_is_changed(runner: Runner, tmp_path: Path) -> None:
    killed = runner.run(mutant_of(runner, "and/or", 2))
    survived = runner.run(mutant_of(runner, "comparison", 2))  # no test has an amount of exactly 100
    hung = runner.run(mutant_of(runner, "removed", 9))
    assert [one.outcome for one in (killed, survived, hung)] == [KILLED, SURVIVED, TIMED_OUT]
    assert survived.diff.splitlines() == ["-    if member and amount > 100:", "+    if member and amount >= 100:"]
    for root in ("root", "copy"):
        assert (tmp_path / root / "domain/fees.py").read_text() == SOURCE


@pytest.mark.slow
def test_what_survives_the_nearest_tests_meets_the_others(runner: Runner, tmp_path: Path) -> None:
    far = (
        "from pathlib import Path\n\n\ndef test_far():\n    assert '>= 100' not in Path('domain/fees.py').read_text()\n"
    )
    (tmp_path / "copy/tests/test_else.py").write_text(far)
    assert runner.run(mutant_of(runner, "comparison", 2)).outcome == KILLED


def test_a_module_is_known_by_its_package_and_through_its_neighbours(tmp_path: Path) -> None:
    files = {
        "domain/__init__.py": "from domain.prices import price\nfrom domain.other import other\n",
        "domain/prices.py": "from domain.fees import fee\n",
        "domain/fees.py": "X = 1\n",
        "domain/other.py": "X = 1\n",
        "tests/test_price.py": "from domain import price\n",
        "tests/test_other.py": "def f():\n    import domain.other\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    runner = Runner(tmp_path, tmp_path, {"domain": ["tests"]})
    near = {name: runner._tests(Path(f"domain/{name}.py"))[0] for name in ("prices", "fees", "other")}
    assert near == {
        "prices": ("tests/test_price.py",),
        "fees": ("tests/test_price.py",),
        "other": ("tests/test_other.py",),
    }


def test_tests_that_fail_without_a_mutant_are_no_measure(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "copy/tests/test_fees.py").write_text("def test_never(): assert False\n")
    with pytest.raises(BaselineFailed, match="without a mutant"):
        runner.run(mutant_of(runner, "comparison", 2))


def test_mutants_are_of_the_paths_that_are_named(runner: Runner) -> None:
    everything = runner.mutants()
    assert len(everything) > 10
    assert runner.mutants(["domain/fees.py"]) == everything
    assert runner.mutants(["domain/other"]) == []


def test_the_report_has_a_rate_by_folder_and_every_survivor() -> None:
    results = [
        Result(Mutant(Path(f"services/{folder}/a.py"), 3, "not", 0, 1, ""), outcome, "-a\n+b", 0.1)
        for folder, outcome in (("x", KILLED), ("x", TIMED_OUT), ("x", SURVIVED), ("y", KILLED))
    ]
    by_folder = rates(results, ["services/y", "services/x"])
    assert by_folder == {"services/x": Rate(3, 2, 1), "services/y": Rate(1, 1, 0), "all": Rate(4, 3, 1)}
    written = json.loads(as_json(results, by_folder))
    assert written["rates"]["services/x"] == {"mutants": 3, "killed": 2, "timed_out": 1, "percent": 66.7}
    assert written["survivors"] == [{"path": "services/x/a.py", "line": 3, "operator": "not", "diff": "-a\n+b"}]
