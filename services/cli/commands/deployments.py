"""`millrace deployments ...`: what is served, and moving it."""

from typing import Annotated, Any

import typer

from services.cli.session import DryRun, Json, Reason, Session, Yes, command, subcommands

app = subcommands(help="What is served, and moving it.")

DeploymentArgument = Annotated[str, typer.Argument(help="The deployment's name; normally the model's.")]


@app.command("list")
@command
def list_deployments(as_json: Json = False) -> None:
    """Show every deployment."""
    session = Session(as_json=as_json)
    told = session.rest().get("/deployments")
    session.out.data(told, lambda document: session.out.table(
        ["deployment", "model", "version", "traffic", "rollout"],
        [(one["name"], one["model"], one["version"], traffic(one), rollout_line(one))
         for one in document["deployments"]],
        empty="no deployments yet",
    ))  # fmt: skip
    if told["deployments"]:
        name = told["deployments"][0]["name"]
        session.out.next(f"millrace deployments show {name}", f"millrace infer {name} TEXT")


@app.command("show")
@command
def show(deployment: DeploymentArgument, as_json: Json = False) -> None:
    """Show one deployment: its traffic, its latest rollout, its health and its newest windows."""
    session = Session(as_json=as_json)
    rest = session.rest()
    told = rest.get(f"/deployments/{deployment}")
    document = {
        **told,
        "health": rest.get(f"/deployments/{deployment}/health").get("versions", []),
        "windows": rest.get(f"/deployments/{deployment}/windows", page_size=5).get("windows", []),
        "verdicts": rest.get(f"/deployments/{deployment}/verdicts", page_size=5).get("verdicts", []),
    }
    session.out.data(document, lambda whole: _show(session, whole))


@app.command("rollout")
@command
def rollout(
    deployment: DeploymentArgument,
    version: Annotated[str, typer.Argument(help="A number or an alias, such as 2 or @challenger.")],
    reason: Reason = "asked for on the command line",
    skip_gate: Annotated[bool, typer.Option("--skip-gate", help="Although the gate refused it.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Roll a version out: canary steps first, all traffic once the evidence says so."""
    session = Session(as_json=as_json)
    if skip_gate and not dry_run:
        session.confirm(f"Send traffic of {deployment} to version {version} past its gate?", yes=yes)
    body = {"version": version, "skip_gate": skip_gate, "reason": reason, "dry_run": dry_run}
    told = session.rest().post(f"/deployments/{deployment}/rollouts", body)
    session.out.data(told, lambda document: _moved(session, document))
    if not dry_run:
        session.out.next(f"millrace deployments show {deployment}", "millrace events tail")


@app.command("rollback")
@command
def rollback(
    deployment: DeploymentArgument,
    reason: Reason = "asked for on the command line",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """End the rollout under way, or return to the version before the present one."""
    session = Session(as_json=as_json)
    _move(session, deployment, f"/deployments/{deployment}:rollback", "Roll back", reason, yes=yes, dry_run=dry_run)


@app.command("pause")
@command
def pause(
    deployment: DeploymentArgument, reason: Reason = "asked for on the command line", as_json: Json = False
) -> None:
    """Hold the rollout at its present step."""
    session = Session(as_json=as_json)
    path = f"/deployments/{deployment}/rollouts:pause"
    _move(session, deployment, path, "Pause", reason, yes=True, dry_run=False)


@app.command("resume")
@command
def resume(
    deployment: DeploymentArgument, reason: Reason = "asked for on the command line", as_json: Json = False
) -> None:
    """Go on with a paused rollout."""
    session = Session(as_json=as_json)
    path = f"/deployments/{deployment}/rollouts:resume"
    _move(session, deployment, path, "Resume", reason, yes=True, dry_run=False)


@app.command("promote")
@command
def promote(
    deployment: DeploymentArgument,
    reason: Reason = "asked for on the command line",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """End the canary now: all traffic moves to the new version."""
    session = Session(as_json=as_json)
    path = f"/deployments/{deployment}/rollouts:promote"
    _move(session, deployment, path, "Promote", reason, yes=yes, dry_run=dry_run)


@app.command("stop")
@command
def stop(
    deployment: DeploymentArgument,
    reason: Reason = "asked for on the command line",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Serve nothing under the name any more, until a rollout is started again."""
    session = Session(as_json=as_json)
    _move(session, deployment, f"/deployments/{deployment}:stop", "Stop", reason, yes=yes, dry_run=dry_run)
    if not dry_run:
        session.out.next(f"millrace deployments rollout {deployment} @previous")


def _move(session: Session, deployment: str, path: str, verb: str, reason: str, *, yes: bool, dry_run: bool) -> None:
    rest = session.rest()
    if dry_run:
        told = rest.get(f"/deployments/{deployment}")
        session.out.say(f"would {verb.lower()} {deployment}, which now stands so:")
    else:
        session.confirm(f"{verb} {deployment}?", yes=yes)
        told = rest.post(path, {"reason": reason})
    session.out.data(told, lambda document: _moved(session, document))
    if not dry_run:
        session.out.next(f"millrace deployments show {deployment}")


def traffic(deployment: dict[str, Any]) -> str:
    """Such as `v2 90% (primary, int8), v3 10% (canary, int8)`."""
    return ", ".join(
        f"v{target['version']} {target['weight']}% ({target['role']}, {target['precision']})"
        for target in deployment["targets"]
    )


def rollout_line(deployment: dict[str, Any]) -> str:
    """Such as `v3 canary, step 1 of 2`; empty without a rollout."""
    latest = deployment.get("rollout")
    if not latest:
        return ""
    step = f", step {latest['step'] + 1} of {len(latest['weights'])}" if latest["state"] == "canary" else ""
    return f"v{latest['version']} {latest['state']}{step}"


def _moved(session: Session, told: dict[str, Any]) -> None:
    session.out.text(f"{told['name']}: {traffic(told) or _unserved(told)}")
    if line := rollout_line(told):
        session.out.text(f"rollout: {line}; {told['rollout'].get('reason') or ''}")


def _unserved(told: dict[str, Any]) -> str:
    return "stopped, nothing is served" if told.get("stopped") else "nothing served yet"


def _show(session: Session, told: dict[str, Any]) -> None:
    _moved(session, told)
    session.out.table(
        ["version", "requests", "errors", "p50 ms", "p99 ms", "labelled", "accuracy"],
        [
            (one["version"], one["requests"], one["errors"], one["latency_p50_ms"], one["latency_p99_ms"],
             one["labelled"], one["accuracy"] if one["labelled"] else None)
            for one in told["health"]
        ],
        empty="no requests yet",
    )  # fmt: skip
    session.out.table(
        ["window", "version", "rows", "p value", "verdict", "closed"],
        [
            (one["number"], one["version"], one["rows"], one["p_value"], one["verdict"], one.get("closed_at"))
            for one in told["windows"]
        ],
        empty="no windows yet",
    )
    session.out.table(
        ["verdict", "version", "step", "requests", "reason"],
        [(one["verdict"], one["version"], one["step"], one["requests"], one["reason"]) for one in told["verdicts"]],
        empty="no verdicts yet",
    )
