"""The words that docs/glossary.md bans from identifiers, and where one stands all the same."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.laws.source import ROOT, python_sources

GLOSSARY: Final = ROOT / "docs" / "glossary.md"
HEADING: Final = "## Banned identifiers"
WIRE_FIELDS: Final = {
    "whole_texts": {Path("services/contracts/events.py"), Path("services/gateway/inbound/oip/wire_models.py")}
}
"""Fields of the contracts' first version, which clients send by these names, and the modules that declare them."""

WORDS: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
ROW: Final = re.compile(r"^\| `(?P<identifier>\w+)` \| (?P<kind>[a-z ]+) \| (?P<instead>.+) \|$")
KINDS: Final = re.compile(r"word|class|name|([a-z]+ )?module")


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
        if defined.path in WIRE_FIELDS.get(defined.name, ()):
            return False
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


def described(ban: Ban, defined: Identifier) -> str:
    return f"{defined.path}:{defined.line} {defined.name} holds what is banned, {ban.key}; instead: {ban.instead}"


def occurrences_here() -> list[tuple[Ban, Identifier]]:
    """Those of the whole repository."""
    banned = bans(GLOSSARY.read_text())
    sources = sorted(python_sources())
    return [occurrence for path in sources for occurrence in banned_in(path, (ROOT / path).read_text(), banned)]
