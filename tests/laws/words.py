"""The words that docs/glossary.md bans from identifiers, where they still stand, and the counts that may only fall.

`python -m tests.laws.words` lowers the counts to what is left; it never raises one.
"""

import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.laws.source import ROOT, python_sources

GLOSSARY: Final = ROOT / "docs" / "glossary.md"
COUNTS: Final = ROOT / "tests" / "laws" / "banned_words.json"
HEADING: Final = "## Banned identifiers"
SHOWN: Final = 12
COMMAND: Final = ".venv/bin/python -m tests.laws.words"

WORDS: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
ROW: Final = re.compile(r"^\| `(?P<identifier>\w+)` \| (?P<kind>[a-z ]+) \| (?P<instead>.+) \|$")
KINDS: Final = re.compile(r"word|class|name|([a-z]+ )?module")

Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Identifier:
    """One definition of a name. `kind` is class, name (function, argument, variable, attribute) or module."""

    path: Path
    line: int
    name: str
    kind: str


@dataclass(frozen=True)
class Ban:
    """A row of the glossary's table. A word is banned within any identifier; the others are banned as a whole."""

    identifier: str
    kind: str
    instead: str

    @property
    def key(self) -> str:
        return f"{self.identifier} ({self.kind})"

    def forbids(self, defined: Identifier) -> bool:
        if self.kind == "word":
            return f"_{'_'.join(words_of(self.identifier))}_" in f"_{'_'.join(words_of(defined.name))}_"
        if self.identifier != defined.name.strip("_"):
            return False
        part, _, kind = self.kind.rpartition(" ")
        return defined.kind == kind and (not part or part in defined.path.parts)


def words_of(name: str) -> list[str]:
    """`OwnFace`, `own_face` and `OWN_FACE` are the words own and face."""
    return [word.lower() for word in WORDS.findall(name)]


def bans(glossary: str) -> list[Ban]:
    """The table below the heading. Raises ValueError for a row that is none."""
    table = glossary.partition(HEADING)[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    banned = []
    for row in rows:
        match = ROW.match(row)
        if match is None or not KINDS.fullmatch(match["kind"]):
            raise ValueError(f"not a row of banned identifiers: {row}")
        banned.append(Ban(match["identifier"], match["kind"], match["instead"]))
    return banned


def definitions(path: Path, text: str) -> Iterator[Identifier]:
    """Every name that a module defines, and the module's own."""
    stem = path.parent.name if path.stem == "__init__" else path.stem
    yield Identifier(path, 1, stem, "module")
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ClassDef(name=name):
                yield Identifier(path, node.lineno, name, "class")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                yield Identifier(path, node.lineno, name, "name")
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield Identifier(path, node.lineno, name, "name")
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield Identifier(path, node.lineno, name, "name")
            case ast.MatchMapping(rest=str(name)):
                yield Identifier(path, node.lineno, name, "name")
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (Identifier(path, node.lineno, alias.asname, "name") for alias in names if alias.asname)


def banned_in(path: Path, text: str, banned: list[Ban]) -> Iterator[tuple[Ban, Identifier]]:
    by_word: dict[str, list[Ban]] = {}
    for ban in banned:
        by_word.setdefault(words_of(ban.identifier)[0], []).append(ban)
    for defined in definitions(path, text):
        for word in dict.fromkeys(words_of(defined.name)):
            yield from ((ban, defined) for ban in by_word.get(word, ()) if ban.forbids(defined))


def folder_of(path: Path) -> str:
    """What is counted together: a service, a folder of tests, or a folder of the root."""
    depth = 2 if path.parts[0] in {"services", "tests"} and len(path.parts) > 2 else 1
    return "/".join(path.parts[: min(depth, len(path.parts) - 1)]) or "."


def count(occurrences: list[tuple[Ban, Identifier]]) -> dict[str, dict[str, int]]:
    """Banned identifier -> folder -> how often it is defined there."""
    numbers = Counter((ban.key, folder_of(identifier.path)) for ban, identifier in occurrences)
    counts: dict[str, dict[str, int]] = {}
    for (key, folder), number in sorted(numbers.items()):
        counts.setdefault(key, {})[folder] = number
    return counts


def breaches(occurrences: list[tuple[Ban, Identifier]], allowed: Counts) -> Iterator[str]:
    """Counts that rose, with each place that is in question; and counts that fell while the file still has the old."""
    counts = count(occurrences)
    for key in sorted({*counts, *allowed}):
        for folder in sorted({*counts.get(key, {}), *allowed.get(key, {})}):
            now, before = counts.get(key, {}).get(folder, 0), allowed.get(key, {}).get(folder, 0)
            if now > before:
                yield f"{key} in {folder}: {now} times, and {before} are left to rename; it is banned"
                here = [(ban, one) for ban, one in occurrences if ban.key == key and folder_of(one.path) == folder]
                for ban, defined in here[:SHOWN]:
                    yield f"    {defined.path}:{defined.line} {defined.name}; instead: {ban.instead}"
                if len(here) > SHOWN:
                    yield f"    and {len(here) - SHOWN} more, in files that were changed longer ago"
            elif now < before:
                yield f"{key} in {folder}: {now} times instead of {before}; lower the count with `{COMMAND}`"


def lowered(counts: Counts, allowed: Counts) -> dict[str, dict[str, int]]:
    """The allowed counts, none of them above what is there."""
    result = {
        key: {folder: low for folder, most in folders.items() if (low := min(most, counts.get(key, {}).get(folder, 0)))}
        for key, folders in allowed.items()
    }
    return {key: folders for key, folders in result.items() if folders}


def occurrences_here() -> list[tuple[Ban, Identifier]]:
    """Those of the whole repository, the files that were changed last first."""
    banned = bans(GLOSSARY.read_text())
    sources = sorted(python_sources(), key=lambda path: (ROOT / path).stat().st_mtime, reverse=True)
    return [occurrence for path in sources for occurrence in banned_in(path, (ROOT / path).read_text(), banned)]


def main() -> int:
    allowed, occurrences = json.loads(COUNTS.read_text()), occurrences_here()
    fewer = lowered(count(occurrences), allowed)
    COUNTS.write_text(json.dumps(fewer, indent=2, sort_keys=True) + "\n")
    rest = list(breaches(occurrences, fewer))
    print("\n".join(rest) or f"{sum(map(len, fewer.values()))} counts are left")
    return 1 if rest else 0


if __name__ == "__main__":
    sys.exit(main())
