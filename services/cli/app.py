"""Putting the command together; each subcommand's work is imported with it, heavy libraries only when it runs."""

from typing import Annotated

import typer

from services.cli.commands import audit, batches, datasets, deployments, dlq, events, keys, models, registry, runs
from services.cli.commands.doctor import doctor
from services.cli.commands.fleet import down, status, up
from services.cli.commands.infer import infer
from services.cli.commands.trace import trace

EXIT_CODES = (
    "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 nothing runs or does not answer, "
    "4 not found, 5 a check found a difference."
)

app = typer.Typer(
    name="millrace",
    help="Run, ask and follow Millrace on this machine. MILLRACE_HOME moves its data folder.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(expected: bool) -> None:
    if expected:
        from importlib.metadata import version

        print(f"millrace {version('millrace')}")
        raise typer.Exit


@app.callback()
def millrace(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and end.")
    ] = False,
) -> None:
    """Run, ask and follow Millrace on this machine. MILLRACE_HOME moves its data folder."""


app.command("up")(up)
app.command("down")(down)
app.command("status")(status)
app.command("doctor")(doctor)
app.command("infer")(infer)
app.command("trace")(trace)
app.add_typer(datasets.app, name="datasets")
app.add_typer(runs.app, name="runs")
app.add_typer(models.app, name="models")
app.add_typer(deployments.app, name="deployments")
app.add_typer(events.app, name="events")
app.add_typer(dlq.app, name="dlq")
app.add_typer(registry.app, name="registry")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(batches.app, name="batches")
