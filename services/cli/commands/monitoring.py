"""`millrace deployments windows | window | verdicts`: what the monitor says of a deployment."""

from itertools import islice
from typing import Annotated, Any

import typer

from services.cli.session import Json, Session

DeploymentArgument = Annotated[str, typer.Argument(help="The deployment's name; normally the model's.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]

PAGE = 200


def windows(
    deployment: DeploymentArgument,
    version: Annotated[int, typer.Option(min=0, help="Only of this version.")] = 0,
    verdict: Annotated[str, typer.Option(help="Only quiet, suspect, drifted or untested ones.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show the drift windows, the newest first."""
    session = Session(as_json=as_json)
    query = {"version": version, "verdict": verdict, "page_size": min(limit, PAGE)}
    matches = list(islice(session.rest().pages(f"/deployments/{deployment}/windows", "windows", **query), limit))
    session.out.data({"windows": matches}, lambda document: show_windows(session, document["windows"]))
    if matches:
        session.out.next(f"millrace deployments window {deployment} {matches[0]['number']}")


def window(
    deployment: DeploymentArgument,
    number: Annotated[int, typer.Argument(min=1, help="The window's number.")],
    as_json: Json = False,
) -> None:
    """Show one drift window with the numbers of its test."""
    session = Session(as_json=as_json)
    reply = session.rest().get(f"/deployments/{deployment}/windows/{number}")
    session.out.data(reply, lambda document: session.out.text(
        "\n".join(f"{name:<14} {value}" for name, value in document.items())
    ))  # fmt: skip


def verdicts(
    deployment: DeploymentArgument,
    version: Annotated[int, typer.Option(min=0, help="Only on this version.")] = 0,
    verdict: Annotated[str, typer.Option(help="Only promote, hold or roll_back.")] = "",
    rollout: Annotated[str, typer.Option("--rollout", help="Only of this rollout.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show the canary verdicts, the newest first; --json has their evidence."""
    session = Session(as_json=as_json)
    query = {"version": version, "verdict": verdict, "rollout": rollout, "page_size": min(limit, PAGE)}
    matches = list(islice(session.rest().pages(f"/deployments/{deployment}/verdicts", "verdicts", **query), limit))
    session.out.data({"verdicts": matches}, lambda document: show_verdicts(session, document["verdicts"]))


def show_windows(session: Session, matches: list[dict[str, Any]]) -> None:
    session.out.table(
        ["window", "version", "variant", "rows", "p value", "verdict", "closed"],
        [
            (one["number"], one["version"], one["variant"], one["rows"], one["p_value"], one["verdict"],
             one.get("closed_at"))
            for one in matches
        ],
        empty="no windows yet",
    )  # fmt: skip


def show_verdicts(session: Session, matches: list[dict[str, Any]]) -> None:
    session.out.table(
        ["verdict", "version", "step", "requests", "reason"],
        [(one["verdict"], one["version"], one["step"], one["requests"], one["reason"]) for one in matches],
        empty="no verdicts yet",
    )
