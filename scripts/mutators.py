"""Small faults for one module's source: each is one edit that a test ought to notice."""

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
# What is said to people changes nothing that a test should hold on to.
TALK: Final = ("logger.", "names.", "telemetry.")


@dataclass(frozen=True)
class Mutant:
    """One edit of one file: the bytes from `start` to `end` become `text`."""

    path: Path
    line: int
    operator: str
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        raw = source.encode()
        return (raw[: self.start] + self.text.encode() + raw[self.end :]).decode()

    def diff(self, source: str) -> str:
        """The lines that change, without context."""
        lines = difflib.unified_diff(source.splitlines(), self.apply(source).splitlines(), n=0, lineterm="")
        return "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))


def mutants_of(path: Path, source: str) -> list[Mutant]:
    """In the order of the source; every one of them differs from the source."""
    tree = ast.parse(source)
    _Marks().visit(tree)
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    made = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.stmt) or getattr(node, "skipped", False):
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        for operator, text in _of_expression(node) if isinstance(node, ast.expr) else _of_statement(node):
            mutant = Mutant(path, node.lineno, operator, start, end, text)
            if mutant.apply(source) != source:
                made.append(mutant)
    return sorted(made, key=lambda mutant: (mutant.start, mutant.end, mutant.operator, mutant.text))


class _Marks(ast.NodeVisitor):
    """Marks what is skipped: annotations, decorators, docstrings, fields with defaults, types' imports, asserts."""

    def generic_visit(self, node: ast.AST) -> None:
        for name in ("annotation", "returns", "decorator_list", "type_params"):
            self._skip(getattr(node, name, None))
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if is_docstring or (isinstance(node, ast.ClassDef) and isinstance(statement, ast.AnnAssign | ast.Assign)):
                self._skip(statement)
        if isinstance(node, ast.Assert) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            self._skip(node)
        if isinstance(node, ast.JoinedStr):  # the parts of an f-string have no places of their own before Python 3.12
            self._skip([part for part in ast.walk(node) if part is not node])
        super().generic_visit(node)

    def _skip(self, left: object) -> None:
        for root in left if isinstance(left, list) else [left]:
            for node in ast.walk(root) if isinstance(root, ast.AST) else ():
                node.skipped = True  # type: ignore[attr-defined]


def _of_expression(node: ast.expr) -> Iterator[tuple[str, str]]:
    """(what is done, the node's new text)."""
    match node:
        case ast.Compare(left=left, ops=[first, *rest], comparators=comparators) if type(first) in COMPARISONS:
            yield "comparison", ast.unparse(ast.Compare(left, [COMPARISONS[type(first)](), *rest], comparators))
        case ast.BoolOp(op=op, values=values):
            other: ast.boolop = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "and/or", f"({ast.unparse(ast.BoolOp(other, values))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not", f"({ast.unparse(operand)})"
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in ARITHMETIC:
            if not any(isinstance(side, ast.Constant | ast.JoinedStr) and _is_text(side) for side in (left, right)):
                yield "arithmetic", f"({ast.unparse(ast.BinOp(left, ARITHMETIC[type(operation)](), right))})"
        case ast.Constant(value=bool(value)):
            yield "constant", str(not value)
        case ast.Constant(value=int(number)):
            yield "constant", str(number + 1)
            yield "constant", f"({number - 1})" if number < 1 else str(number - 1)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield "condition", f"({ast.unparse(ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse))})"


def _of_statement(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """The same."""
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None", "return None"
        case ast.Expr(value=ast.Call() | ast.Await()) if not _is_talk(node.value):
            yield "removed", "pass"
        case ast.AugAssign() | ast.Raise() | ast.Delete():
            yield "removed", "pass"
        case ast.Continue():
            yield "break", "break"
        case ast.Break():
            yield "continue", "continue"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _is_talk(node: ast.expr) -> bool:
    return ast.unparse(node).startswith(TALK)
