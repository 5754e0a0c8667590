"""`millrace registry ...`: the registry's own upkeep."""

import json
import os
import subprocess
import sys
from typing import Annotated

import typer

from services.cli.errors import CliError, Exit
from services.cli.launcher.launch import running_state
from services.cli.session import Json, Session, Yes, command, subcommands

app = subcommands(help="The registry's own upkeep.")


@app.callback()
def registry() -> None:
    """The registry's own upkeep."""


@app.command("rebuild")
@command
def rebuild(
    check: Annotated[bool, typer.Option("--check", help="Compare only, and write nothing.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Rebuild the registry's tables from its history, and compare the state hashes.

    Exit code 0 when tables and history agree, 5 when they did not, 1 when the history itself is broken.
    """
    session = Session(as_json=as_json)
    if not check and running_state(session.home) is not None:
        raise CliError("the registry runs; its tables are rebuilt while it does not", hint="millrace down")
    if not check:
        session.confirm("Drop the registry's tables and rebuild them from its history?", yes=yes)
    command_line = [sys.executable, "-m", "services.registry", "rebuild", "--json", *(["--check"] if check else [])]
    environment = {**os.environ, "MILLRACE_HOME": str(session.home.root)}
    done = subprocess.run(command_line, check=False, capture_output=True, text=True, env=environment)
    if done.returncode not in {0, 1} or not done.stdout.strip():
        raise CliError((done.stderr.strip() or "the rebuild failed").splitlines()[-1], code="broken_history")
    reply = json.loads(done.stdout.strip().splitlines()[-1])
    agree = "agree" if not reply["differing"] else f"differ for {', '.join(reply['differing'])}"
    session.out.data(reply, lambda _: print(
        f"{reply['facts']} facts, {reply['models']} models, state {reply['hash'][:16]}: tables and history {agree}"
    ))  # fmt: skip
    if done.returncode:
        raise typer.Exit(int(Exit.DIFFERS))
