"""Each operator makes the fault it is named for, at its line, and leaves alone what no test ought to hold on to."""

import ast
from pathlib import Path

import pytest

from scripts.mutators import mutants_of

ROOT = Path(__file__).parents[3]
PATH = Path("services/x.py")


@pytest.mark.parametrize(
    ("source", "operator", "mutated"),
    [
        ("def f(a, b): return_(a < b)", "comparison", "def f(a, b): return_(a <= b)"),
        ("x = a >= b", "comparison", "x = a > b"),
        ("x = a == b", "comparison", "x = a != b"),
        ("x = a is None", "comparison", "x = a is not None"),
        ("x = a not in b", "comparison", "x = a in b"),
        ("x = a and b", "and/or", "x = (a or b)"),
        ("x = not a", "not", "x = (a)"),
        ("x = a + b", "arithmetic", "x = (a - b)"),
        ("x = a // b", "arithmetic", "x = (a * b)"),
        ("x = True", "constant", "x = False"),
        ("x = a if b else c", "condition", "x = (a if not b else c)"),
        ("def f():\n    return a", "return None", "def f():\n    return None"),
        ("def f():\n    save(a)", "removed", "def f():\n    pass"),
        ("async def f():\n    await save(a)", "removed", "async def f():\n    pass"),
        ("def f():\n    raise A(b)", "removed", "def f():\n    pass"),
        ("x += a", "removed", "pass"),
        ("for x in y:\n    continue", "break", "for x in y:\n    break"),
        ("while x:\n    break", "continue", "while x:\n    continue"),
        ("x = 'ä' if é else c; y = a < b", "comparison", "x = 'ä' if é else c; y = a <= b"),
    ],
)
def test_an_operator_makes_its_fault(source: str, operator: str, mutated: str) -> None:
    by_operator = {mutant.operator: mutant for mutant in mutants_of(PATH, source)}
    assert by_operator[operator].apply(source) == mutated


def test_a_number_is_tried_one_higher_and_one_lower() -> None:
    assert [mutant.apply("x = 5") for mutant in mutants_of(PATH, "x = 5")] == ["x = 4", "x = 6"]
    assert [mutant.apply("x = 0") for mutant in mutants_of(PATH, "x = 0")] == ["x = (-1)", "x = 1"]


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "def f(a: Literal[1, 2]) -> tuple[Literal[3], int]: ...",
        "@retry(3)\ndef f(): ...",
        "if TYPE_CHECKING:\n    x = 1",
        "assert a < 3",
        "class A(Model):\n    version: int = Field(default=0, ge=1)\n    model_config = Config(frozen=True)",
        "def f():\n    return None",
        "x = 'a' + b",
        "x = f'{a + 1}'",
        "logger.info('done')",
        "names.RUNS.labels(a).inc()",
    ],
)
def test_what_no_test_ought_to_hold_on_to_is_left_alone(source: str) -> None:
    assert mutants_of(PATH, source) == []


def test_a_mutant_knows_its_line_and_shows_its_lines() -> None:
    source = "a = b\nif a < (\n    c\n):\n    d()\n"
    (mutant,) = [one for one in mutants_of(PATH, source) if one.operator == "comparison"]
    assert mutant.line == 2
    assert mutant.diff(source).splitlines() == ["-if a < (", "-    c", "-):", "+if a <= c:"]


@pytest.mark.parametrize("name", ["services/registry/domain/gate.py", "services/kit/persistence/sql/unit_of_work.py"])
def test_every_mutant_of_a_real_module_parses_and_differs(name: str) -> None:
    source = (ROOT / name).read_text()
    mutated = [mutant.apply(source) for mutant in mutants_of(Path(name), source)]
    assert len(mutated) > 30
    assert source not in mutated
    assert all(ast.parse(text) for text in mutated)
