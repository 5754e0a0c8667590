"""Docstrings as texts: read from source with `ast` (nothing is imported), cleaned, masked and cut to length."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

MAX_CHARACTERS: Final = 240
MIN_CHARACTERS: Final = 60
MIN_WORDS: Final = 6
MIN_LETTERS: Final = 0.75
MASK: Final = "module"

_CUT: Final = re.compile(
    r"^\s*(args|arguments|parameters|params|returns?|raises|yields|examples?|attributes|notes?|see also|usage|warnings?"
    r"|references|keyword arguments|\.\. [\w-]+::|>>>|:param|:return|:raises?|@param|:type)\b.*",
    re.IGNORECASE,
)
_SIGNATURE: Final = re.compile(r"^[\w.]+\(.*\)(\s*(->|--|=>).*)?$")
_ROLE: Final = re.compile(r":[\w:+-]+:`~?!?\.?([^`<]*)(?:<[^`]*>)?`")
_URL: Final = re.compile(r"\w+://\S+")
_RULE: Final = re.compile(r"[-=~^*#_+]{3,}")
_MARKUP: Final = re.compile(r"[`*|\\]|::")
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def human(qualified: str) -> str:
    """`PurePath.with_suffix` as "pure path with suffix"."""
    return " ".join(_WORDS.findall(qualified)).lower()


def text_of(qualified: str, docstring: str, masked: re.Pattern[str]) -> str | None:
    """The text made of one docstring, or None when too little of it is language."""
    body = _clean(docstring)
    text = " ".join(masked.sub(MASK, f"{human(qualified)}: {body}").split())
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS].rsplit(" ", 1)[0]
    solid = [character for character in text if not character.isspace()]
    alphabetic = sum(character.isalpha() for character in solid)
    if len(text) < MIN_CHARACTERS or len(body.split()) < MIN_WORDS or alphabetic <= MIN_LETTERS * len(solid):
        return None
    return text


def mask_for(names: Iterable[str]) -> re.Pattern[str]:
    """Matches the given module names as whole words; such names would tell the label away."""
    ordered = sorted({name for name in names if len(name) > 1}, key=lambda name: (-len(name), name))
    return re.compile(r"\b(?:" + "|".join(map(re.escape, ordered)) + r")\b", re.IGNORECASE)


def docstrings(source: Path) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of each public class, function and method; nothing when the file does not parse."""
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):
        return
    yield from _walk(tree, ())


def builtin_docstrings(name: str) -> Iterator[tuple[str, str]]:
    """The same of a module written in C, from its `__doc__` attributes."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return
    for owner, member in sorted(vars(module).items()):
        if owner.startswith("_") or isinstance(member, ModuleType):
            continue
        yield from _documented(owner, member)
        if inspect.isclass(member):
            for attribute, value in sorted(vars(member).items()):
                if not attribute.startswith("_"):
                    yield from _documented(f"{owner}.{attribute}", value)


def _documented(qualified: str, member: object) -> Iterator[tuple[str, str]]:
    document = inspect.getdoc(member) if callable(member) or inspect.isdatadescriptor(member) else None
    if document and isinstance(document, str):
        yield qualified, document


def _walk(node: ast.AST, parents: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            qualified = (*parents, child.name)
            document = ast.get_docstring(child)
            if document and not child.name.startswith("__"):
                yield ".".join(qualified), document
            if isinstance(child, ast.ClassDef):
                yield from _walk(child, qualified)
        elif isinstance(child, ast.If | ast.Try):
            yield from _walk(child, parents)


def _clean(docstring: str) -> str:
    retained: list[str] = []
    for number, line in enumerate(docstring.splitlines()):
        bare = line.strip()
        if number == 0 and _SIGNATURE.match(bare):
            continue
        if bare == "--" or _RULE.fullmatch(bare):
            continue
        if _CUT.match(line) or ">>>" in line:
            break
        retained.append(bare)
    text = _ROLE.sub(r"\1", " ".join(retained))
    return " ".join(_MARKUP.sub(" ", _RULE.sub(" ", _URL.sub(" ", text))).split())
