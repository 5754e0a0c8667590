"""Runs the suites in the order in which a failure tells most, then says what they ran on and what was left out.

    scripts/run_tests.py [--fast] [--require PART ...] [-- PYTEST ARGUMENTS]

`--fast` is the inner loop: units and contracts, without what is marked slow or needs another server. With `CI=true`
in the environment Apache Kafka and PostgreSQL must not be left out. The exit status is 1 when any suite failed.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.clients import page, tried  # noqa: E402  (the repository is put on the path above)
from tests.surroundings import PARTS, read_tally  # noqa: E402  (likewise)

TALLY: Final = ROOT / ".cache/tests/surroundings.json"
FAST: Final = "not slow and not kafka and not postgres and not gpu"


@dataclass(frozen=True)
class Suite:
    """Folders under `tests/` that run together; `workers` 0 means one after another, in this process."""

    name: str
    folders: tuple[str, ...]
    workers: int


SUITES: Final = (
    Suite("units, contracts, laws", ("unit", "contracts", "laws"), 2),
    Suite("integration", ("integration",), 2),
    Suite("bad input", ("fuzz",), 2),
    # These start whole fleets and kill parts of them: two at once would disturb each other's clocks on two cores.
    Suite("end to end", ("e2e",), 0),
    Suite("clients", ("clients",), 0),
    Suite("faults", ("faults",), 0),
)


def command(suite: Suite, *, fast: bool, extra: list[str]) -> list[str] | None:
    """The pytest call of a suite; None when this tree has none of its folders."""
    folders = [f"tests/{folder}" for folder in suite.folders if any((ROOT / "tests" / folder).rglob("test_*.py"))]
    if fast:
        folders = [folder for folder in folders if folder in {"tests/unit", "tests/contracts"}]
    if not folders:
        return None
    # One file's tests stay on one worker: a file's broker or database is started once.
    spread = ["-n", str(suite.workers), "--dist", "loadfile"] if suite.workers else ["-n", "0"]
    # What takes a second and more here belongs among the slow: it is named at the end.
    chosen = ["-m", FAST, "--hypothesis-profile", "fast", "--durations", "8", "--durations-min", "1"] if fast else []
    return [sys.executable, "-m", "pytest", "-q", *spread, *chosen, "--surroundings", str(TALLY), *folders, *extra]


def environment() -> dict[str, str]:
    """One thread a process: with two workers on two cores, more threads only wait for each other."""
    return {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false", **os.environ}


def run(suites: tuple[Suite, ...], *, fast: bool, extra: list[str]) -> list[str]:
    """Runs each suite whatever the others did, and gives the names of those that failed."""
    failed = []
    for suite in suites:
        call = command(suite, fast=fast, extra=extra)
        if call is None:
            continue
        print(f"\n== {suite.name}", flush=True)
        started = time.monotonic()
        status = subprocess.run(call, cwd=ROOT, env=environment(), check=False).returncode
        # 5: nothing was collected, which a narrowed run (-k, --lf) does to most suites.
        if status not in (0, 5):
            failed.append(suite.name)
        print(
            f"== {suite.name}: {'failed' if suite.name in failed else 'ok'}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    return failed


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--require", action="append", default=[], choices=list(PARTS))
    options, extra = parser.parse_known_args(arguments)
    required = set(options.require)
    if os.environ.get("CI") == "true" and not options.fast:
        required |= {"kafka", "postgres"}
    TALLY.parent.mkdir(parents=True, exist_ok=True)
    TALLY.unlink(missing_ok=True)
    tried.RESULTS.unlink(missing_ok=True)
    started = time.monotonic()
    failed = run(SUITES, fast=options.fast, extra=[part for part in extra if part != "--"])
    tally = read_tally(TALLY)
    if calls := tried.recorded_calls():
        print("\n== clients that were tried")
        for line in page.summary(calls):
            print(f"   {line}")
    print("\n== all suites")
    for line in tally.lines():
        print(f"   {line}")
    for part in sorted(tally.missing(required)):
        print(f"   required, but left out: {PARTS[part]}")
        failed.append(f"{PARTS[part]} was left out")
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items())) or "nothing ran"
    print(f"== {counted} in {time.monotonic() - started:.0f} s" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed or not tally.outcomes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
