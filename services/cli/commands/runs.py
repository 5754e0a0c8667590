"""`millrace runs ...`: training runs."""

from typing import Annotated, Any

import typer

from services.cli.commands.models import interval, overall
from services.cli.session import DryRun, Json, Reason, Session, Yes, command, subcommands

app = subcommands(help="Training runs.")

RunArgument = Annotated[str, typer.Argument(help="The run's id.")]


@app.command("list")
@command
def list_runs(
    model: Annotated[str, typer.Option(help="Of this model only.")] = "",
    status: Annotated[str, typer.Option(help="In this state only, such as failed.")] = "",
    as_json: Json = False,
) -> None:
    """Show runs, the newest first."""
    session = Session(as_json=as_json)
    told = session.rest().get("/runs", model=model, status=status)
    session.out.data(told, lambda document: session.out.table(
        ["run", "model", "data set", "status", "attempt", "macro F1", "cause", "created"],
        [
            (one["run"], one["model"], one["dataset"], one["status"], one["attempt"], overall(one).get("macro_f1"),
             one["cause"], one.get("created_at"))
            for one in document["runs"]
        ],
        empty="no runs yet; millrace datasets push FILE --model NAME starts one",
    ))  # fmt: skip
    if told["runs"]:
        session.out.next(f"millrace runs show {told['runs'][0]['run']}", f"millrace runs logs {told['runs'][0]['run']}")


@app.command("show")
@command
def show(run: RunArgument, as_json: Json = False) -> None:
    """Show one run."""
    session = Session(as_json=as_json)
    told = session.rest().get(f"/runs/{run}")
    session.out.data(told, lambda document: _show(session, document))
    if told.get("trace_id"):
        session.out.next(f"millrace trace {told['trace_id']}")


@app.command("logs")
@command
def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run ends.")] = False,
    after: Annotated[int, typer.Option(help="From the line after this one.")] = 0,
    as_json: Json = False,
) -> None:
    """Show what a run wrote, one line each."""
    session = Session(as_json=as_json)
    for line in session.rest().lines(f"/runs/{run}/logs", follow=follow, after_line=after):
        session.out.line(line, line["text"])


@app.command("cancel")
@command
def cancel(
    run: RunArgument,
    reason: Reason = "asked for on the command line",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop a run."""
    session = Session(as_json=as_json)
    rest = session.rest()
    if dry_run:
        told = rest.get(f"/runs/{run}")
        session.out.say("would cancel this run:")
    else:
        session.confirm(f"Cancel {run}?", yes=yes)
        told = rest.post(f"/runs/{run}:cancel", {"reason": reason})
    session.out.data(told, lambda document: _show(session, document))


def _show(session: Session, told: dict[str, Any]) -> None:
    for name in ("run", "model", "dataset", "status", "cause", "attempt", "created_at", "ended_at", "trace_id"):
        session.out.text(f"{name:<12} {told.get(name) or '-'}")
    if told.get("failure_code"):
        session.out.text(f"{'failure':<12} {told['failure_code']}: {told['failure_reason']}")
    scores = overall(told)
    if scores:
        session.out.text(
            f"{'macro F1':<12} {scores['macro_f1']:.3f} ({interval(scores)}), TF-IDF {told['tfidf_macro_f1']:.3f}"
        )
