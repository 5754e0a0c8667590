"""`millrace runs ...`: training runs."""

from typing import Annotated, Any

import typer

from services.cli.scores import interval, overall
from services.cli.session import DryRun, Json, Limit, Page, Reason, RecipeJson, Session, Yes, command, more, subcommands

app = subcommands(help="Training runs.")

_SHOWN = (
    "run", "model", "dataset", "content_hash", "data_hash", "status", "cause", "started_by", "start_reason", "attempt",
    "created_at", "ended_at", "trace_id",
)  # fmt: skip
_SHOWN_IF_THERE = ("recipe_json", "hold_back", "cancelled_by", "cancel_reason")

RunArgument = Annotated[str, typer.Argument(help="The run's id.")]


@app.command("list")
@command
def list_runs(
    *,
    model: Annotated[str, typer.Option(help="Of this model only.")] = "",
    status: Annotated[str, typer.Option(help="In this state only, such as failed.")] = "",
    dataset: Annotated[str, typer.Option(help="On this data set only.")] = "",
    since: Annotated[str, typer.Option(help="Created then or later, such as 2026-01-31T12:00:00Z.")] = "",
    limit: Limit = 50,
    page: Page = "",
    as_json: Json = False,
) -> None:
    """Show runs, the newest first."""
    session = Session(as_json=as_json)
    expected = {"model": model, "status": status, "dataset": dataset, "since": since}
    reply = session.rest().get("/runs", **expected, page_size=limit, page_token=page)
    session.out.data(reply, lambda document: session.out.table(
        ["run", "model", "data set", "content", "status", "attempt", "macro F1", "cause", "created"],
        [
            (one["run"], one["model"], one["dataset"], one["content_hash"][:12], one["status"], one["attempt"],
             overall(one).get("macro_f1"), one["cause"], one.get("created_at"))
            for one in document["runs"]
        ],
        empty="no runs yet; millrace datasets push FILE --model NAME starts one",
    ))  # fmt: skip
    filters = "".join(f" --{name} {value}" for name, value in expected.items() if value)
    more(session, f"millrace runs list{filters}", reply)
    if reply["runs"]:
        session.out.next(
            f"millrace runs show {reply['runs'][0]['run']}", f"millrace runs logs {reply['runs'][0]['run']}"
        )


@app.command("start")
@command
def start(
    dataset: Annotated[str, typer.Argument(help="The data set's name.")],
    *,
    version: Annotated[str, typer.Option(help="An earlier content: its hash, or at least the first 8 digits.")] = "",
    model: Annotated[str, typer.Option(help="The model to train; the data set's own when empty.")] = "",
    recipe: RecipeJson = "",
    deploy: Annotated[bool, typer.Option(help="Roll the version out once it is judged good.")] = True,
    reason: Reason = "asked for on the command line",
    key: Annotated[str, typer.Option(help="An idempotency key: with the same one, the same run.")] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train on a data set as it was last announced, or on an earlier version of it."""
    session = Session(as_json=as_json)
    rest = session.rest()
    if dry_run:
        reply = rest.get(f"/datasets/{dataset}/versions/{version}" if version else f"/datasets/{dataset}")
        session.out.data(reply, lambda one: session.out.text(
            f"would train {model or one['model']} on {dataset}, content {one['content_hash'] or 'as it lies'}"
        ))  # fmt: skip
        return
    body: dict[str, Any] = {"dataset": dataset, "content_hash": version, "model": model, "recipe_json": recipe}
    body |= {"hold_back": not deploy, "reason": reason}
    reply = rest.post("/runs", body, {"idempotency-key": key}) if key else rest.change("POST", "/runs", body)
    session.out.data(reply, lambda document: _show(session, document))
    session.out.next(f"millrace runs logs {reply['run']} --follow", f"millrace runs cancel {reply['run']}")


@app.command("show")
@command
def show(run: RunArgument, as_json: Json = False) -> None:
    """Show one run."""
    session = Session(as_json=as_json)
    reply = session.rest().get(f"/runs/{run}")
    session.out.data(reply, lambda document: _show(session, document))
    if reply.get("trace_id"):
        session.out.next(f"millrace trace {reply['trace_id']}")


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
        reply = rest.get(f"/runs/{run}")
        session.out.say("would cancel this run:")
    else:
        session.confirm(f"Cancel {run}?", yes=yes)
        reply = rest.change("POST", f"/runs/{run}:cancel", {"reason": reason})
    session.out.data(reply, lambda document: _show(session, document))


def _show(session: Session, reply: dict[str, Any]) -> None:
    for name in _SHOWN:
        session.out.text(f"{name:<13} {reply.get(name) or '-'}")
    for name in _SHOWN_IF_THERE:
        if reply.get(name):
            session.out.text(f"{name:<13} {reply[name]}")
    if reply.get("failure_code"):
        session.out.text(f"{'failure':<13} {reply['failure_code']}: {reply['failure_reason']}")
    if reply.get("failure_hint"):
        where = f" ({reply['failure_field']})" if reply.get("failure_field") else ""
        session.out.text(f"{'what to do':<13} {reply['failure_hint']}{where}")
    scores = overall(reply)
    if scores:
        session.out.text(
            f"{'macro F1':<13} {scores['macro_f1']:.3f} ({interval(scores)}), TF-IDF {reply['tfidf_macro_f1']:.3f}"
        )
