"""Every `millrace` line that the documents give to paste is accepted: subcommands, options, arguments."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from services.cli.app import app
from tests.unit.deploy.files import ROOT, pasted

DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
LINES = sorted({line for document in DOCUMENTS for line in pasted(document)})


def parse(line: str, file: Path) -> Any:
    """What the command line means to the parser, down to the last subcommand; raises its UsageError."""
    words = [str(file) if word == "FILE" else word for word in shlex.split(line, comments=True)[1:]]
    command: Any = typer.main.get_command(app)
    context = command.make_context("millrace", words)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, words, parent=context)
    return context


@pytest.mark.parametrize("line", LINES)
def test_a_pasted_line_is_accepted(line: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    assert parse(line, file).command is not None


@pytest.mark.parametrize(
    "line", ["millrace runs lst", "millrace runs list --colour", "millrace runs show", "millrace models show A B C"]
)
def test_a_line_that_the_command_does_not_know_is_caught(line: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"No such|Missing|unexpected"):
        parse(line, tmp_path / "rows.jsonl")
