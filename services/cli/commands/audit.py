"""`millrace audit ...`: who did what, and whether the record of it is whole."""

from itertools import islice
from typing import Annotated, Any

import typer

from services.cli.errors import CliError, Exit
from services.cli.hash_chain import Checked, check_chain
from services.cli.session import Json, Session, command, subcommands

app = subcommands(help="Who did what and why, and whether the record of it is whole.")

PAGE = 200


@app.callback()
def audit() -> None:
    """Who did what and why, and whether the record of it is whole."""


@app.command("list")
@command
def list_facts(
    *,
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    deployment: Annotated[str, typer.Option(help="Only of this deployment.")] = "",
    kind: Annotated[str, typer.Option(help="Only of this kind, such as rollout_promoted.")] = "",
    actor: Annotated[str, typer.Option(help="Only by this actor, as it stands in the list.")] = "",
    since: Annotated[str, typer.Option(help="At or after this time, such as 2026-11-25T10:00:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Before this time.")] = "",
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Instead of the newest.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """Show the registry's facts, the newest first."""
    if model and deployment:
        raise CliError("choose a model or a deployment", status=Exit.USAGE)
    session = Session(as_json=as_json)
    stream = (model and f"model/{model}") or (deployment and f"deployment/{deployment}")
    query = {"kind": kind, "actor": actor, "since": since, "until": until, "page_size": min(limit, PAGE)}
    query |= {"stream": stream, "newest_first": "" if oldest_first else "true"}
    entries = list(islice(session.rest().pages("/history", "entries", **query), limit))
    session.out.data({"entries": entries}, lambda document: session.out.table(
        ["number", "at", "kind", "actor", "reason"],
        [(one["sequence"], one["at"], one["kind"], one["actor"], one["reason"]) for one in document["entries"]],
        empty="no such facts",
    ))  # fmt: skip
    session.out.next("millrace audit verify")


@app.command("verify")
@command
def verify(as_json: Json = False) -> None:
    """Recompute the hash chain over the whole history, from what the gateway tells: no database is needed.

    Exit code 0 when it is whole up to its head, 5 when it is broken; then the first number that does not fit is shown.
    """
    session = Session(as_json=as_json)
    rest = session.rest()
    head = rest.get("/history/head")
    checked = check_chain(rest.pages("/history", "entries", whole_chain="true", page_size=PAGE), head)
    session.out.data(_document(checked), lambda _: session.out.text(_text(checked)))
    if checked.broken_at is not None:
        raise typer.Exit(int(Exit.DIFFERS))


def _document(checked: Checked) -> dict[str, Any]:
    return {
        "whole": checked.broken_at is None,
        "facts": checked.facts,
        "links": checked.links,
        "head": checked.head,
        "broken_at": checked.broken_at,
        "problem": checked.problem or None,
    }


def _text(checked: Checked) -> str:
    if checked.broken_at is not None:
        return f"broken at number {checked.broken_at}: {checked.problem}"
    links = f" and {checked.links} links of other tenants" if checked.links else ""
    return f"whole: {checked.facts} facts{links}, head {checked.head[:16]}"
