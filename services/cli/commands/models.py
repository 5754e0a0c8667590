"""`millrace models ...`: what the registry knows of models and their versions."""

from typing import Annotated, Any

import typer

from services.cli.scores import interval, overall
from services.cli.session import DryRun, Json, Reason, Session, Yes, command, subcommands

app = subcommands(help="Models and their versions.")

ModelArgument = Annotated[str, typer.Argument(help="The model's name.")]


@app.command("list")
@command
def list_models(as_json: Json = False) -> None:
    """Show every model."""
    session = Session(as_json=as_json)
    reply = {"models": list(session.rest().pages("/models", "models"))}
    session.out.data(reply, lambda document: session.out.table(
        ["model", "versions", "champion"],
        [(model["name"], len(model["versions"]), model["aliases"].get("champion")) for model in document["models"]],
        empty="no models yet; millrace datasets push FILE --model NAME trains one",
    ))  # fmt: skip
    if reply["models"]:
        session.out.next(f"millrace models show {reply['models'][0]['name']}")


@app.command("show")
@command
def show(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="A number or an alias, such as 2 or @champion.")] = "",
    as_json: Json = False,
) -> None:
    """Show a model's versions, or one version with its gate, variants and lineage."""
    session = Session(as_json=as_json)
    rest = session.rest()
    if version:
        session.out.data(rest.get(f"/models/{model}/versions/{version}"), lambda reply: _show_version(session, reply))
        return
    reply = rest.get(f"/models/{model}")
    session.out.data(reply, lambda document: session.out.table(
        ["version", "status", "macro F1", "95% CI", "TF-IDF", "precision", "run", "parent", "aliases"],
        [_row(one) for one in document["versions"]],
    ))  # fmt: skip
    if reply["versions"]:
        session.out.next(f"millrace models show {model} {reply['versions'][-1]['number']}")


@app.command("lineage")
@command
def lineage(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="A number or an alias, such as 2 or @champion.")],
    as_of: Annotated[str, typer.Option(help="As it was known then, such as 2026-11-25T10:00:00Z.")] = "",
    as_json: Json = False,
) -> None:
    """Follow a version back to its data and forward to what became of it."""
    from services.cli.lineage import tree

    session = Session(as_json=as_json)
    reply = session.rest().get(f"/models/{model}/versions/{version}/lineage", as_of=as_of)
    session.out.data(reply, lambda graph: session.out.text("\n".join(tree(graph))))
    session.out.next(f"millrace models show {model} {reply['version']}", f"millrace audit list --model {model}")


aliases = subcommands(help="Movable names of versions.")
app.add_typer(aliases, name="alias")


@aliases.callback()
def alias() -> None:
    """Movable names of versions."""


@aliases.command("set")
@command
def set_alias(
    model: ModelArgument,
    alias: Annotated[str, typer.Argument(help="The alias, without @; champion, challenger and previous move alone.")],
    version: Annotated[int, typer.Argument(min=1, help="The version's number.")],
    reason: Reason = "asked for on the command line",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Point an alias at a version."""
    session = Session(as_json=as_json)
    if not dry_run:
        session.confirm(f"Point @{alias} of {model} at version {version}?", yes=yes)
    body = {"version": version, "reason": reason, "dry_run": dry_run}
    reply = session.rest().change("PUT", f"/models/{model}/aliases/{alias}", body)
    session.out.data(reply, lambda document: _aliases(session, document))
    if not dry_run:
        session.out.next(f"millrace models show {model} @{alias}")


def _aliases(session: Session, reply: dict[str, Any]) -> None:
    moved = ", ".join(f"@{name} version {number}" for name, number in sorted(reply["aliases"].items()))
    session.out.text(f"{reply['name']}{' (dry run, nothing was changed)' if reply.get('dry_run') else ''}: {moved}")


def _row(version: dict[str, Any]) -> tuple[object, ...]:
    scores = overall(version)
    return (
        version["number"],
        version["status"],
        scores.get("macro_f1"),
        interval(scores),
        version["tfidf_macro_f1"],
        version["precision"],
        version["run"],
        version["parent"] or None,
        ", ".join(f"@{alias}" for alias in version["aliases"]),
    )


def _show_version(session: Session, reply: dict[str, Any]) -> None:
    lineage = ("model", "number", "status", "precision", "run", "dataset", "data_hash", "code_version", "base_model")
    for name in (*lineage, "parent", "registered_at"):
        session.out.text(f"{name:<14} {reply.get(name) or '-'}")
    session.out.text("")
    session.out.table(
        ["slice", "rows", "accuracy", "macro F1", "95% CI"],
        [(part["name"], part["rows"], part["accuracy"], part["macro_f1"], interval(part)) for part in reply["slices"]],
    )
    session.out.table(
        ["variant", "KiB", "macro F1", "agreement", "speedup", "passed"],
        [
            (one["precision"], one["size_kib"], one["macro_f1"], one["agreement"], one["speedup"], one["passed"])
            for one in reply["variants"]
        ],
    )
    checks = reply.get("gate", {}).get("checks", [])
    session.out.table(
        ["check", "passed", "value", "limit", "what it says"],
        [(one["name"], one["passed"], one["value"], one["limit"], one["detail"]) for one in checks],
        empty="the gate has not judged it",
    )
