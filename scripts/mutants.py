"""Mutation testing, small: faults are put into the rules one at a time, and the tests of that file ought to fail.

`make mutants` takes a sample of `domain`, the kit's messaging and its persistence. A mutant is tried in a copy of the
repository, so that the working tree is never touched. What survives is printed with its line and its diff: either a
test is missing, or the line is needless. Exits 1 when fewer than `--at-least` percent were killed, 2 when tests fail
without a mutant.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from scripts.mutators import Mutant, mutants_of

ROOT: Final = Path(__file__).resolve().parents[1]
PYTEST_OPTIONS: Final = ("-n", "0", "--hypothesis-profile", "fast", "-k", "not postgres")

# Folder -> the tests that are to hold its rules: folders or files, narrowed to those that know the file's module.
SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    "services/gateway/domain": ("tests/unit/gateway",),
    "services/inference/domain": ("tests/unit/inference",),
    "services/monitor/domain": ("tests/unit/monitor", "tests/integration/monitor"),
    "services/registry/domain": ("tests/unit/registry", "tests/integration/registry"),
    "services/trainer/domain": ("tests/unit/trainer", "tests/integration/trainer/test_service.py"),
    "services/kit/messaging": ("tests/unit/kit", "tests/integration/kit/test_messaging.py"),
    "services/kit/persistence": (
        "tests/integration/kit/test_inbox_and_outbox.py",
        "tests/integration/kit/test_idempotency.py",
        "tests/integration/kit/test_history.py",
        "tests/integration/kit/test_job_rows.py",
        "tests/integration/kit/test_relay.py",
        "tests/integration/kit/test_databases.py",
        "tests/unit/kit/test_jobs_and_timers.py",
    ),
}
LEFT_OUT: Final = ("test_false_alarms.py",)  # minutes, for what statistics promise
SLOWER: Final = 3.0
GRACE_SECONDS: Final = 20.0

KILLED: Final = "killed"
TIMED_OUT: Final = "timed out"
SURVIVED: Final = "survived"


@dataclass(frozen=True)
class Result:
    """What the tests made of a mutant."""

    mutant: Mutant
    outcome: str
    diff: str
    seconds: float


class BaselineFailed(RuntimeError):
    """The tests fail without any mutant."""


class Runner:
    """Tries mutants in a copy of a repository. `suites` says by folder which tests are to notice."""

    def __init__(
        self,
        root: Path,
        copy: Path,
        suites: Mapping[str, Sequence[str]],
        pytest_options: Sequence[str] = (),
        *,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._root = root
        self._copy = copy
        self._suites = suites
        self._pytest_options = pytest_options
        self._grace_seconds = grace_seconds
        self._written = 1_000_000_000
        self._baselines: dict[tuple[str, ...], float] = {}

    def mutants(self, prefixes: Sequence[str] = ()) -> list[Mutant]:
        """All of the folders of `suites`, or of these paths among them."""
        paths = sorted(
            path.relative_to(self._root)
            for folder in self._suites
            for path in (self._root / folder).rglob("*.py")
            if "migrations" not in path.parts
        )
        chosen = [path for path in paths if not prefixes or path.as_posix().startswith(tuple(prefixes))]
        return [mutant for path in chosen for mutant in mutants_of(path, (self._root / path).read_text())]

    def run(self, mutant: Mutant) -> Result:
        """The nearest tests first; what survives them meets the others of its suite. Raises BaselineFailed."""
        source, started, outcome = (self._root / mutant.path).read_text(), time.monotonic(), SURVIVED
        for tests in filter(None, self._tests(mutant.path)):
            if outcome == SURVIVED:
                outcome = self._outcome(mutant, source, tests)
        return Result(mutant, outcome, mutant.diff(source), round(time.monotonic() - started, 1))

    def _outcome(self, mutant: Mutant, source: str, tests: tuple[str, ...]) -> str:
        if tests not in self._baselines:
            self._baselines[tests] = self._baseline(tests)
        self._write(mutant.path, mutant.apply(source))
        try:
            code = self._pytest(tests, self._baselines[tests] * SLOWER + self._grace_seconds)
        finally:
            self._write(mutant.path, source)
        return TIMED_OUT if code is None else SURVIVED if code == 0 else KILLED

    def _write(self, path: Path, text: str) -> None:
        """Each time with a time of its own: a compiled module is known by its source's size and second alone."""
        self._written += 2
        (self._copy / path).write_text(text)
        os.utime(self._copy / path, (self._written, self._written))

    def _baseline(self, tests: tuple[str, ...]) -> float:
        started = time.monotonic()
        if (code := self._pytest(tests, None)) != 0:
            raise BaselineFailed(f"{' '.join(tests)} exits {code} without a mutant")
        return time.monotonic() - started

    def _pytest(self, tests: Sequence[str], seconds: float | None) -> int | None:
        """The exit code; None when it took longer."""
        call = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [*call, *self._pytest_options, *tests],
            cwd=self._copy,
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return None

    def _tests(self, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of the folder's suite, those that import the module, by a package's name or through its neighbours too; and
        the others."""
        folder = max((name for name in self._suites if path.as_posix().startswith(f"{name}/")), key=len)
        files = [file for name in self._suites[folder] for file in self._files(name)]
        near = [file for file in files if path in self._reached(self._root / file, folder)]
        return tuple(near), tuple(file for file in files if file not in near)

    def _reached(self, test: Path, folder: str) -> set[Path]:
        """Modules of the folder that a test imports, and what these import of it."""
        reached: set[Path] = set()
        waiting = [file for name in imported(test, self._root) for file in modules_of(name, self._root)]
        while waiting:
            file = waiting.pop()
            path = file.relative_to(self._root)
            if path in reached or not path.as_posix().startswith(f"{folder}/"):
                continue
            reached.add(path)
            if file.name != "__init__.py":  # whose every import would be taken for one that the test needs
                waiting += [one for name in names_in(file) for one in modules_of(name, self._root)]
        return reached

    def _files(self, name: str) -> list[str]:
        path = self._root / name
        files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
        return [file.relative_to(self._root).as_posix() for file in files if file.name not in LEFT_OUT]


def names_in(file: Path) -> set[str]:
    """Every dotted name that a module imports, and what these are imported from."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def modules_of(name: str, root: Path) -> list[Path]:
    """The file of a module, or those from which a package has a name."""
    path = root.joinpath(*name.split("."))
    if path.with_suffix(".py").is_file():
        return [path.with_suffix(".py")]
    package, _, attribute = name.rpartition(".")
    init = root.joinpath(*package.split("."), "__init__.py")
    if path.is_dir() or not init.is_file():
        return [path / "__init__.py"] if (path / "__init__.py").is_file() else []
    sources = [
        node.module
        for node in ast.parse(init.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module and attribute in {alias.name for alias in node.names}
    ]
    return [file for source in sources if source != package for file in modules_of(source, root)]


def imported(file: Path, root: Path, seen: frozenset[Path] = frozenset()) -> set[str]:
    """Every dotted name that a test imports, and what these are imported from; through its fixtures and helpers too."""
    names = names_in(file)
    helpers = {root.joinpath(*name.split(".")).with_suffix(".py") for name in names if name.startswith("tests.")}
    helpers |= {file.with_name("conftest.py")}
    for helper in helpers - seen - {file}:
        if helper.is_file():
            names |= imported(helper, root, seen | helpers | {file})
    return names


def copied(root: Path, target: Path) -> None:
    """What git knows of, and what it would."""
    call = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(call, cwd=root, check=True, capture_output=True, text=True).stdout
    for name in {name for name in listed.split("\0") if name and (root / name).is_file()}:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target / name)


@dataclass(frozen=True)
class Rate:
    """How many of the mutants were noticed; one that makes the tests hang is."""

    mutants: int
    killed: int
    timed_out: int

    @classmethod
    def of(cls, results: Sequence[Result]) -> "Rate":
        outcomes = [result.outcome for result in results]
        return cls(len(outcomes), len(outcomes) - outcomes.count(SURVIVED), outcomes.count(TIMED_OUT))

    @property
    def percent(self) -> float:
        return round(100 * self.killed / self.mutants, 1) if self.mutants else 100.0


def rates(results: Sequence[Result], folders: Sequence[str]) -> dict[str, Rate]:
    """By folder, for those that have any, and `all`."""
    by_folder: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_folder[next(name for name in folders if result.mutant.path.as_posix().startswith(f"{name}/"))].append(result)
    return {**{name: Rate.of(some) for name, some in sorted(by_folder.items())}, "all": Rate.of(results)}


def as_json(results: Sequence[Result], by_folder: Mapping[str, Rate]) -> str:
    survivors = [
        {"path": one.mutant.path.as_posix(), "line": one.mutant.line, "operator": one.mutant.operator, "diff": one.diff}
        for one in results
        if one.outcome == SURVIVED
    ]
    numbers = {name: {**asdict(rate), "percent": rate.percent} for name, rate in by_folder.items()}
    return json.dumps({"rates": numbers, "survivors": survivors}, indent=2) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("paths", nargs="*", help="folders or files; all of the suites without one")
    parser.add_argument("--sample", type=int, default=60, metavar="N", help="mutants to try; 0 tries all")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--limit-seconds", type=float, default=0.0, help="stop after so long, with what was tried")
    parser.add_argument("--at-least", type=float, default=70.0, metavar="PERCENT", help="killed, or exit 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")
    return parser.parse_args()


def try_all(runner: Runner, mutants: Sequence[Mutant], limit_seconds: float) -> list[Result]:
    results, started = [], time.monotonic()
    for number, mutant in enumerate(mutants, 1):
        if limit_seconds and time.monotonic() - started > limit_seconds:
            print(f"stopped after {number - 1} of {len(mutants)}")
            break
        result = runner.run(mutant)
        results.append(result)
        print(f"{number:>4} {result.outcome:<9} {mutant.path}:{mutant.line} {mutant.operator} ({result.seconds} s)")
        if result.outcome == SURVIVED:
            print(result.diff)
        sys.stdout.flush()
    return results


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copied(ROOT, Path(folder))
        runner = Runner(ROOT, Path(folder), SUITES, PYTEST_OPTIONS)
        mutants = runner.mutants(options.paths)
        chosen = random.Random(options.seed).sample(mutants, min(options.sample or len(mutants), len(mutants)))
        if not options.limit_seconds:  # by file, so that what survives is read together
            chosen.sort(key=mutants.index)
        try:
            results = try_all(runner, chosen, options.limit_seconds)
        except BaselineFailed as failed:
            print(failed, file=sys.stderr)
            return 2
    by_folder = rates(results, list(SUITES))
    if options.json:
        options.json.write_text(as_json(results, by_folder))
    for name, rate in by_folder.items():
        print(f"{name:<32} {rate.killed:>4} of {rate.mutants:>4} killed, {rate.percent:>5} %")
    return 0 if by_folder["all"].percent >= options.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
