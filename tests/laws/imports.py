"""What a module imports: at its head, in a function, under TYPE_CHECKING, by a call; and what it may import."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SERVICES: Final = ("gateway", "inference", "monitor", "registry", "trainer")

# The standard library's modules that neither wait, nor ask the machine, nor reach out of the process.
PURE: Final = frozenset({
    "__future__", "abc", "array", "base64", "binascii", "bisect", "codecs", "collections", "contextlib", "copy",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "graphlib", "hashlib", "heapq", "itertools",
    "json", "math", "operator", "re", "statistics", "string", "struct", "sys.byteorder", "textwrap", "types",
    "typing", "unicodedata",
})  # fmt: skip
# Rules compute; they may build on these. Drawn numbers come in (numpy.random is banned by ruff where it is unseeded).
COMPUTING: Final = frozenset({"numpy", "pydantic"})
# The kit's ports: what a transaction, a clock, an event and a caller look like, without what makes them so.
KIT_PORTS: Final = frozenset({
    "services.kit.core.clock.Clock",
    "services.kit.core.hash_chain",
    "services.kit.core.idempotency",
    "services.kit.core.ids.Ids",
    "services.kit.core.retention",
    "services.kit.core.tabular.UnusableData",
    "services.kit.identity.auth.NO_KEY_LIMITS",
    "services.kit.identity.auth.Principal",
    "services.kit.identity.keys.KeyRecord",
    "services.kit.identity.keys.NewKey",
    "services.kit.messaging.envelope",
    "services.kit.persistence.unit_of_work",
})  # fmt: skip
# A use case also waits for several things at once, and says what it does; sleeping is banned by ruff.
ORCHESTRATION: Final = frozenset({"asyncio", "services.kit.core.log.logger", "services.kit.core.telemetry"})
# Generated classes are a wire form, not a word of the domain.
WIRE: Final = "services.contracts.rpc"

POSITIVE: Final[Mapping[str, frozenset[str]]] = {
    "domain": PURE | COMPUTING | KIT_PORTS,
    "handlers": PURE | COMPUTING | KIT_PORTS | ORCHESTRATION,
}

# What each of the two may import of its own service.
OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "domain": ("domain", "errors"),
    "handlers": ("handlers", "ports", "domain", "errors", "telemetry"),
}

# Members of a module on the list that it may not be used for: waiting on the machine, reading and writing files.
OF_ASYNCIO: Final = frozenset({
    "CancelledError", "Event", "Future", "Lock", "Queue", "Semaphore", "Task", "TaskGroup", "create_task",
    "current_task", "ensure_future", "gather", "shield", "timeout", "timeout_at", "wait", "wait_for",
})  # fmt: skip
READING_AND_WRITING: Final[Mapping[str, frozenset[str]]] = {
    "codecs": frozenset({"open"}),
    "numpy": frozenset({"fromfile", "genfromtxt", "load", "loadtxt", "memmap", "save", "savetxt", "savez"}),
}

# Builtins that reach out of the process without any import.
IMPURE_BUILTINS: Final = frozenset({"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"})
IMPORTERS: Final = frozenset({
    "__import__", "importlib.import_module", "importlib.reload", "importlib.util.spec_from_file_location",
    "pkgutil.resolve_name", "runpy.run_module", "runpy.run_path",
})  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported name, dotted: `a.b` of `import a.b`, and `a.b.c` of `from a.b import c`."""

    path: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"


def within(name: str, allowed: frozenset[str] | set[str]) -> bool:
    """Whether the name or a package that holds it is among the allowed ones."""
    parts = name.split(".")
    return any(".".join(parts[:length]) in allowed for length in range(1, len(parts) + 1))


def imports_of(path: Path, text: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(path, node.lineno, f"{node.module}.{alias.name}" if node.module else alias.name)


def layer_of(path: Path) -> tuple[str, str] | None:
    """The service and the layer of a module, or None outside of services."""
    parts = path.with_suffix("").parts
    if len(parts) < 3 or parts[0] != "services" or parts[1] not in SERVICES:
        return None
    return parts[1], parts[2]


def outside_the_list(path: Path, text: str) -> Iterator[str]:
    """Imports of domain and handlers that are not on the positive list, and builtins that need no import."""
    service, layer = layer_of(path) or ("", "")
    if layer not in POSITIVE:
        return
    own = {f"services.{service}.{lower}" for lower in OWN[layer]}
    for imported in imports_of(path, text):
        contracts = within(imported.name, {"services.contracts"}) and not within(imported.name, {WIRE})
        if not contracts and not within(imported.name, POSITIVE[layer] | own):
            yield f"{imported}, which is not on the list of {layer}"
    for line, name in names_used(text):
        module, _, member = name.partition(".")
        if name in IMPURE_BUILTINS or (module == "asyncio" and member and member not in OF_ASYNCIO):
            yield f"{path}:{line} uses {name}, which reaches out of the process"
        elif member in READING_AND_WRITING.get(module, ()):
            yield f"{path}:{line} uses {name}, which reads or writes a file"


def imports_by_name(path: Path, text: str) -> Iterator[str]:
    """Calls that import what no linter sees: `importlib.import_module`, `__import__` and their like."""
    for line, name in names_used(text):
        if name in IMPORTERS:
            yield f"{path}:{line} imports by {name}, unseen by the linters"


def names_used(text: str) -> Iterator[tuple[int, str]]:
    """Every name that is read, with its line: builtins as they are, imported ones in full, whatever their alias."""
    tree = ast.parse(text)
    names = {name: name for name in IMPURE_BUILTINS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name.partition(".")[0]
                names[alias.asname or head] = alias.name if alias.asname else head
        elif isinstance(node, ast.ImportFrom):
            names |= {(alias.asname or alias.name): f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            head, dot, rest = ast.unparse(node).partition(".")
            if head in names:
                yield node.lineno, f"{names[head]}{dot}{rest}"
