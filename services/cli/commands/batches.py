"""`millrace batches ...`: files that are classified while nobody waits."""

import secrets
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.cli.errors import Exit
from services.cli.session import DryRun, Json, Reason, Session, Yes, command, subcommands
from services.cli.uploading import Handed, kind_of

app = subcommands(help="Files that are classified while nobody waits.")

POLL_SECONDS: Final = 0.5
ENDED: Final = ("succeeded", "failed", "cancelled")

BatchArgument = Annotated[str, typer.Argument(help="The batch's id.")]


@app.command("create")
@command
def create(
    file: Annotated[str, typer.Argument(help="A .jsonl or .csv file, or the address of one.")],
    *,
    deployment: Annotated[str, typer.Option("--deployment", "-d", help="The deployment to ask.")],
    text_column: Annotated[str, typer.Option(help="Which column holds the text.")] = "text",
    version: Annotated[int, typer.Option(help="Which of the served versions answers; 0 leaves it to the weights.")] = 0,
    with_embeddings: Annotated[bool, typer.Option("--with-embeddings", help="Answer with embeddings too.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until the batch has ended.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Classify every row of a file; one of this machine is uploaded first."""
    session = Session(as_json=as_json)
    handed = None if "://" in file else Handed.of(Path(file))
    body: dict[str, Any] = {"uri": file, "format": kind_of(file), "deployment": deployment}
    body |= {"text_column": text_column, "version": version, "with_embeddings": with_embeddings}
    if dry_run:
        way = "classify" if handed is None else f"upload {handed.size_bytes} bytes and classify"
        session.out.data(body, lambda reply: session.out.text(f"would {way} {reply['uri']} by {deployment}"))
        return
    if handed is not None:
        body["uri"] = handed.upload(session)["uri"]
    reply = session.rest().post("/batches", body, headers={"idempotency-key": secrets.token_hex(16)})
    if wait:
        reply = _wait(session, reply)
    session.out.data(reply, lambda document: _show(session, document))
    _next(session, reply)
    if reply["status"] == "failed":
        raise typer.Exit(int(Exit.FAILED))


@app.command("list")
@command
def list_batches(
    deployment: Annotated[str, typer.Option("--deployment", "-d", help="Of this deployment only.")] = "",
    status: Annotated[str, typer.Option(help="In this state only, such as running.")] = "",
    as_json: Json = False,
) -> None:
    """Show batches, the newest first."""
    session = Session(as_json=as_json)
    reply = session.rest().get("/batches", deployment=deployment, status=status)
    session.out.data(reply, lambda document: session.out.table(
        ["batch", "deployment", "status", "progress", "rows", "failed rows", "created", "input"],
        [
            (one["batch"], one["deployment"], one["status"], f"{one['progress']:.0%}", one["rows"], one["failed_rows"],
             one.get("created_at"), one["uri"])
            for one in document["batches"]
        ],
        empty="no batches yet; millrace batches create FILE --deployment NAME makes one",
    ))  # fmt: skip
    if reply["batches"]:
        session.out.next(f"millrace batches show {reply['batches'][0]['batch']}")


@app.command("show")
@command
def show(batch: BatchArgument, as_json: Json = False) -> None:
    """Show one batch."""
    session = Session(as_json=as_json)
    reply = session.rest().get(f"/batches/{batch}")
    session.out.data(reply, lambda document: _show(session, document))
    _next(session, reply)


@app.command("cancel")
@command
def cancel(
    batch: BatchArgument,
    reason: Reason = "asked for on the command line",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """End a batch; what it has written is removed."""
    session = Session(as_json=as_json)
    rest = session.rest()
    if dry_run:
        reply = rest.get(f"/batches/{batch}")
        session.out.say("would cancel this batch:")
    else:
        session.confirm(f"Cancel {batch}?", yes=yes)
        key = {"idempotency-key": secrets.token_hex(16)}
        reply = rest.post(f"/batches/{batch}:cancel", {"reason": reason}, headers=key)
    session.out.data(reply, lambda document: _show(session, document))


@app.command("output")
@command
def output(batch: BatchArgument, as_json: Json = False) -> None:
    """Write the output of a batch that has succeeded: one JSON object a row of the input."""
    session = Session(as_json=as_json)
    import json

    for line in session.rest().lines(f"/batches/{batch}/output", follow=False):
        session.out.line(line, json.dumps(line, ensure_ascii=False))


def _wait(session: Session, reply: dict[str, Any]) -> dict[str, Any]:
    """Follows the batch to its end, with its progress on standard error."""
    rest, last_line = session.rest(), ""
    while reply["status"] not in ENDED:
        threading.Event().wait(POLL_SECONDS)
        reply = rest.get(f"/batches/{reply['batch']}")
        line = f"{reply['status']}: {reply['progress']:.0%}, {reply['rows']} rows, {reply['failed_rows']} failed"
        if line != last_line and (sys.stderr.isatty() or reply["status"] in ENDED or not last_line):
            session.out.say(line)
        last_line = line
    return reply


def _show(session: Session, reply: dict[str, Any]) -> None:
    for name in ("batch", "deployment", "uri", "status", "rows", "failed_rows", "attempt", "created_at", "ended_at"):
        session.out.text(f"{name:<12} {reply.get(name) if reply.get(name) is not None else '-'}")
    session.out.text(f"{'progress':<12} {reply['progress']:.0%}")
    if reply.get("failure_code"):
        where = f" (row {reply['failure_row']})" if reply.get("failure_row") else ""
        session.out.text(f"{'failure':<12} {reply['failure_code']}: {reply['failure_reason']}{where}")
    if reply.get("output_uri"):
        session.out.text(f"{'output':<12} {reply['output_uri']}")


def _next(session: Session, reply: dict[str, Any]) -> None:
    if reply["status"] == "succeeded":
        session.out.next(f"millrace batches output {reply['batch']}")
    elif reply["status"] not in ENDED:
        session.out.next(f"millrace batches show {reply['batch']}")
    if reply.get("trace_id"):
        session.out.next(f"millrace trace {reply['trace_id']}")
