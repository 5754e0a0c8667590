"""The house's laws that no linter knows, as functions from a file's text to its breaches."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

FILE_LINES: Final = 400
FUNCTION_LINES: Final = 40

LATER: Final = re.compile(r"\b(TODO|FIXME|XXX)\b")
VAGUE: Final = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
VAGUE_CLASS: Final = re.compile(r"(Manager|Helper|Util|Utils)$")
# Every one of these reads or writes pickles, some only by default.
PICKLE: Final = re.compile(
    r"^\s*(import|from)\s+_?(c?[pP]ickle|cloudpickle|dill|joblib|shelve|marshal)\b"
    r"|\btorch\.(load|save)\(|\ballow_pickle\s*=\s*True|\bread_pickle\(|\.to_pickle\(|\btraining_args\.bin\b",
    re.MULTILINE,
)
# Hosts that packages, images or weights are fetched from: which one to use is the machine's business, not ours.
HOSTS: Final = re.compile(
    r"\b(pypi\.(org|python)|pythonhosted\.org|huggingface\.co|hf\.co|repo1?\.maven\.|maven\.apache\.org/maven2|npmjs\.(org|com)"
    r"|proxy\.golang|docker\.io|ghcr\.io|quay\.io|gcr\.io|mcr\.microsoft|conda\.anaconda|crates\.io|download\.pytorch)"
)
MACHINE_PATHS: Final = re.compile(r"(?<![\w.$/{-])/(work|root|home/\w+)/")
PATCH: Final = re.compile(
    r"\bmock\.patch\b|\bfrom unittest(\.mock)? import|\bmonkeypatch\.setattr\(\s*[\"']|\bmocker\b"
)

GENERATED: Final = ("services/contracts/rpc/", "services/gateway/inbound/http/models/")
TEXT: Final = {
    ".py",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".json",
    ".sh",
    ".xml",
    ".proto",
    ".lock",
    ".Dockerfile",
    ".cfg",
    "",
}


def tracked() -> list[Path]:
    """Every file that is, or is about to be, in the repository; relative to its root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # A set: during a merge git names a path in conflict once a side.
    return sorted({path for name in listed.split("\0") if name and (ROOT / (path := Path(name))).is_file()})


def python_sources() -> list[Path]:
    """What people wrote in Python: without the generated stubs."""
    return [path for path in tracked() if path.suffix == ".py" and not str(path).startswith(GENERATED)]


def text_files() -> list[Path]:
    return [path for path in tracked() if path.suffix in TEXT]


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring: a promise may be as long as it needs to be."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def too_long(path: Path, text: str) -> Iterator[str]:
    """Files past 400 lines, functions past 40. A migration is one straight script and may be longer."""
    count = len(text.splitlines())
    if count > FILE_LINES:
        yield f"{path} has {count} lines, more than {FILE_LINES}"
    if "migrations/versions" in path.as_posix():
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > FUNCTION_LINES:
            yield f"{path}:{node.lineno} {node.name} has {code_lines(node)} lines, more than {FUNCTION_LINES}"


def vaguely_named(path: Path, text: str) -> Iterator[str]:
    if path.name in VAGUE:
        yield f"{path} is named after nothing"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and VAGUE_CLASS.search(node.name):
            yield f"{path}:{node.lineno} {node.name} is named after nothing"


def matching(pattern: re.Pattern[str], path: Path, text: str) -> Iterator[str]:
    for match in pattern.finditer(text):
        yield f"{path}:{text.count(chr(10), 0, match.start()) + 1} {match.group(0).strip()}"


def left_for_later(path: Path, text: str) -> Iterator[str]:
    return matching(LATER, path, text)


def pickles(path: Path, text: str) -> Iterator[str]:
    return matching(PICKLE, path, text)


def names_a_host(path: Path, text: str) -> Iterator[str]:
    return matching(HOSTS, path, text)


def names_a_machine(path: Path, text: str) -> Iterator[str]:
    return matching(MACHINE_PATHS, path, text)


def patches(path: Path, text: str) -> Iterator[str]:
    """Tests that replace things by import path, where a fake handed in would do."""
    return matching(PATCH, path, text)
