"""`millrace datasets ...`: handing data over."""

import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from services.cli.errors import CliError, Exit
from services.cli.home import Home
from services.cli.session import DryRun, Json, Session, command, subcommands

app = subcommands(help="Data sets.")


@app.command("list")
@command
def list_datasets(as_json: Json = False) -> None:
    """Show the data sets that were announced."""
    session = Session(as_json=as_json)
    told = session.rest().get("/datasets")
    session.out.data(told, lambda document: session.out.table(
        ["data set", "model", "format", "announced", "latest run", "where"],
        [
            (one["name"], one["model"], one["format"], one.get("announced_at"), one["latest_run"], one["uri"])
            for one in document["datasets"]
        ],
        empty="no data sets yet",
    ))  # fmt: skip


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
    hold_back: Annotated[bool, typer.Option("--hold-back", help="Train and judge, but do not roll out.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Announce a data set: it will be trained on, judged and, when good enough, rolled out."""
    session = Session(as_json=as_json)
    body = _announcement(session.home, file, name, model)
    body |= {"text_column": text_column, "label_column": label_column, "split_column": split_column}
    body["hold_back"] = hold_back
    if dry_run:
        session.out.data(body, lambda told: session.out.text(f"would announce {told['dataset']} at {told['uri']}"))
        return
    rest = session.rest()
    if body["uri"] != file.resolve().as_uri():
        copy_to(file, body["uri"])
    told = rest.post("/datasets", body, headers={"idempotency-key": secrets.token_hex(16)})
    document = {**told, "dataset": body["dataset"]}
    session.out.data(
        document, lambda whole: session.out.text(f"announced {whole['dataset']}, event {whole['event_id']}")
    )
    session.out.next("millrace runs list", f"millrace trace {told['trace_id']}", "millrace events tail")


def _announcement(home: Home, file: Path, name: str, model: str) -> dict[str, Any]:
    """Raises CliError for a file that is not there or of another kind.

    Where the services run here the file goes to the data folder first, which is where the trainer may read; for a
    gateway elsewhere (MILLRACE_URL) the file must lie where that gateway's trainer finds it.
    """
    if not file.is_file():
        raise CliError(f"there is no file {file}", code="missing_file", status=Exit.USAGE)
    kind = file.suffix.removeprefix(".").lower()
    if kind not in {"jsonl", "csv"}:
        raise CliError(f"{file.name} is neither .jsonl nor .csv", code="unknown_format", status=Exit.USAGE)
    dataset = name or dataset_name(file.stem)
    place = file.resolve()
    if "MILLRACE_URL" not in os.environ and home.root not in place.parents:
        place = home.datasets / f"{dataset}.{secrets.token_hex(4)}.{kind}"
    return {"dataset": dataset, "uri": place.as_uri(), "format": kind, "model": model}


def copy_to(file: Path, uri: str) -> None:
    """Whole or not at all: the trainer never sees half a file."""
    target = Path(unquote(urlsplit(uri).path))
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}")
    shutil.copyfile(file, draft)
    draft.replace(target)


def dataset_name(stem: str) -> str:
    """A file's name as the name of a data set: lower case, other characters become dashes."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-")[:63].strip("._-")
    return cleaned or "data"
