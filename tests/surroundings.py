"""A pytest plugin that tells what a run used (which broker, which database) and what it left out, and why.

A test uses a part when its markers, its parameters or its fixtures name it: `@pytest.mark.kafka`, `test_x[postgres]`,
a fixture `embedded_broker`. `--require PART` turns a part that was left out into a failure, for CI.
`--surroundings FILE` adds this run's figures to a JSON file, so that several runs can be told as one.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

PARTS: Final = {
    "memory": "in-memory bus and store",
    "embedded": "embedded broker",
    "kafka": "Apache Kafka",
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "gpu": "CUDA device",
}
WORDS: Final = {part: {part} for part in PARTS} | {
    "postgres": {"postgres", "postgresql"},
    "gpu": {"gpu", "cuda"},
}


@dataclass
class Tally:
    """What was run and what was left out, part by part; sums of several runs are meaningful."""

    ran: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_parts: dict[str, list[str]] = field(default_factory=dict)

    def ran_with(self, parts: Iterable[str]) -> None:
        self.ran.update(parts)

    def left_out(self, parts: Iterable[str], reason: str) -> None:
        self.skipped[reason] += 1
        for part in parts:
            reasons = self.skipped_parts.setdefault(part, [])
            if reason not in reasons:
                reasons.append(reason)

    def add(self, other: "Tally") -> None:
        self.ran.update(other.ran)
        self.outcomes.update(other.outcomes)
        self.skipped.update(other.skipped)
        for part, reasons in other.skipped_parts.items():
            known = self.skipped_parts.setdefault(part, [])
            known.extend(reason for reason in reasons if reason not in known)

    def missing(self, required: Iterable[str]) -> list[str]:
        """Of the parts that must not be left out, those that were, or that no test used."""
        return [part for part in required if part in self.skipped_parts or not self.ran[part]]

    def lines(self) -> list[str]:
        """For people: what ran on what, then each reason for leaving something out."""
        lines = [f"ran on {PARTS[part]}: {self.ran[part]} tests" for part in PARTS if self.ran[part]]
        lines += [
            f"left out {PARTS[part]}: {'; '.join(self.skipped_parts[part])}"
            for part in PARTS
            if part in self.skipped_parts
        ]
        lines += [f"skipped {count}: {reason}" for reason, count in sorted(self.skipped.items())]
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "ran": dict(self.ran),
            "outcomes": dict(self.outcomes),
            "skipped": dict(self.skipped),
            "skipped_parts": self.skipped_parts,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Tally":
        return cls(
            Counter(data["ran"]), Counter(data["outcomes"]), Counter(data["skipped"]), dict(data["skipped_parts"])
        )


def parts_of(item: pytest.Item) -> list[str]:
    """The parts that a test's markers, parameters and fixtures name."""
    named = {mark.name for mark in item.iter_markers()}
    bracket = re.search(r"\[(.*)\]$", item.name)
    if bracket:
        # A parameter that says `gpu` may be a file's name; only the marker means the device.
        named.update(set(bracket.group(1).lower().split("-")) - WORDS["gpu"])
    for fixture in getattr(item, "fixturenames", ()):
        if fixture != "monkeypatch":
            named.update(fixture.lower().split("_"))
    return [part for part, words in WORDS.items() if named & words]


def read_tally(path: Path) -> Tally:
    return Tally.from_json(json.loads(path.read_text())) if path.exists() else Tally()


class Surroundings:
    """Counts on the process that reports; workers of xdist only label their tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.tally = Tally()
        self.required: list[str] = config.getoption("--require")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        parts = next((value for name, value in report.user_properties if name == "parts"), [])
        assert isinstance(parts, list)
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.tally.left_out(parts, reason.removeprefix("Skipped: "))
            self.tally.outcomes["skipped"] += 1
        elif report.when == "call" or report.failed:
            self.tally.outcomes[report.outcome] += 1
            if report.when == "call":
                self.tally.ran_with(parts)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.tally.left_out([], report.longrepr[2].removeprefix("Skipped: "))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.OK and self.tally.missing(self.required):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        path = self.config.getoption("--surroundings")
        if path is not None:
            total = read_tally(Path(path))
            total.add(self.tally)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(json.dumps(total.to_json(), indent=2) + "\n")
        elif self.tally.lines():
            terminalreporter.section("surroundings")
            for line in self.tally.lines():
                terminalreporter.write_line(line)
        for part in self.tally.missing(self.required):
            terminalreporter.write_line(f"required, but left out: {PARTS[part]}", red=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("surroundings")
    group.addoption(
        "--require", action="append", default=[], choices=list(PARTS), help="fail if this part was left out"
    )
    group.addoption("--surroundings", default=None, metavar="FILE", help="add what ran and what was left out to FILE")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Surroundings(config), "surroundings-report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties.append(("parts", parts_of(item)))
