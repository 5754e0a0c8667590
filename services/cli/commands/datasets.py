"""`millrace datasets ...`: handing data over, and what was handed over before."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.session import DryRun, Json, Limit, Page, RecipeJson, Session, command, more, subcommands
from services.cli.uploading import Handed

app = subcommands(help="Data sets.")

NameArgument = Annotated[str, typer.Argument(help="The data set's name.")]
SHORT = 12


@app.command("list")
@command
def list_datasets(limit: Limit = 50, page: Page = "", as_json: Json = False) -> None:
    """Show the data sets that were announced."""
    session = Session(as_json=as_json)
    reply = session.rest().get("/datasets", page_size=limit, page_token=page)
    session.out.data(reply, lambda document: session.out.table(
        ["data set", "content", "model", "format", "announced", "latest run", "where"],
        [
            (one["name"], one["content_hash"][:SHORT], one["model"], one["format"], one.get("announced_at"),
             one["latest_run"], one["uri"])
            for one in document["datasets"]
        ],
        empty="no data sets yet; millrace datasets push FILE --model NAME hands one over",
    ))  # fmt: skip
    more(session, "millrace datasets list", reply)
    if reply["datasets"]:
        session.out.next(f"millrace datasets show {reply['datasets'][0]['name']}")


@app.command("show")
@command
def show(
    name: NameArgument,
    version: Annotated[str, typer.Argument(help="A version's content hash, or at least its first 8 digits.")] = "",
    as_json: Json = False,
) -> None:
    """Show a data set as it was last announced, or one of its versions."""
    session = Session(as_json=as_json)
    path = f"/datasets/{name}/versions/{version}" if version else f"/datasets/{name}"
    reply = session.rest().get(path)
    session.out.data(reply, lambda document: _show(session, document))
    session.out.next(f"millrace datasets versions {name}", f"millrace runs list --dataset {name}")


@app.command("versions")
@command
def versions(name: NameArgument, limit: Limit = 50, page: Page = "", as_json: Json = False) -> None:
    """Show the contents that a data set has had, the newest first."""
    session = Session(as_json=as_json)
    reply = session.rest().get(f"/datasets/{name}/versions", page_size=limit, page_token=page)
    session.out.data(reply, lambda document: session.out.table(
        ["content", "bytes", "rows", "format", "model", "announced", "latest run"],
        [
            (one["content_hash"][:SHORT], one["size_bytes"] or None, one["rows"] or None, one["format"], one["model"],
             one.get("announced_at"), one["latest_run"])
            for one in document["versions"]
        ],
        empty="no version yet; the first run will tell what it read",
    ))  # fmt: skip
    more(session, f"millrace datasets versions {name}", reply)
    if reply["versions"]:
        session.out.next(f"millrace runs start {name} --version {reply['versions'][-1]['content_hash'][:SHORT]}")


@app.command("push")
@command
def push(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .csv file with a text and a label column.")],
    *,
    model: Annotated[str, typer.Option(help="The model to train with it.")],
    name: Annotated[str, typer.Option(help="The data set's name; made from the file's name when empty.")] = "",
    text_column: Annotated[str, typer.Option(help="Which column holds the text.")] = "text",
    label_column: Annotated[str, typer.Option(help="Which column holds the label.")] = "label",
    split_column: Annotated[str, typer.Option(help="Which column says train, test or reference, if one does.")] = "",
    recipe: RecipeJson = "",
    deploy: Annotated[bool, typer.Option(help="Roll the version out once it is judged good.")] = True,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Upload a data set and announce it: it will be trained on, judged and, when good enough, rolled out.

    Pushing the same file in the same way again changes nothing.
    """
    session = Session(as_json=as_json)
    handed = Handed.of(file, name)
    body: dict[str, Any] = {"dataset": handed.dataset, "format": handed.format, "model": model}
    body["content_hash"] = handed.sha256
    body |= {"text_column": text_column, "label_column": label_column, "split_column": split_column}
    body |= {"recipe_json": recipe, "hold_back": not deploy}
    if dry_run:
        session.out.data(
            {**body, "size_bytes": handed.size_bytes},
            lambda reply: session.out.text(
                f"would upload {reply['size_bytes']} bytes as {reply['dataset']}, content {reply['content_hash']}"
            ),
        )
        return
    uploaded = handed.upload(session)
    reply = session.rest().post("/datasets", body | {"uri": uploaded["uri"]}, {"idempotency-key": _key(body)})
    session.out.data({**reply, **uploaded}, lambda document: session.out.text(
        f"announced {document['dataset']}, content {document['content_hash'][:SHORT]}, event {document['event_id']}"
    ))  # fmt: skip
    session.out.next(f"millrace runs list --dataset {handed.dataset}", f"millrace trace {reply['trace_id']}")


def _key(body: dict[str, Any]) -> str:
    """The same announcement has the same key, so that it is one event however often it is made."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _show(session: Session, reply: dict[str, Any]) -> None:
    version = reply.get("version") or {}
    lines = {**version, **reply, "dataset": reply.get("name") or reply.get("dataset")}
    names = ("dataset", "content_hash", "size_bytes", "rows", "format", "model", "uri", "announced_at", "latest_run")
    for name in names:
        session.out.text(f"{name:<13} {lines.get(name) or '-'}")
