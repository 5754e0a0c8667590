"""`millrace deployments ...`: what is served, and moving it."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from services.cli.commands.monitoring import show_verdicts, show_windows, verdicts, window, windows
from services.cli.errors import CliError
from services.cli.session import DryRun, Json, Reason, Session, Yes, command, subcommands

app = subcommands(help="What is served, and moving it.")

DeploymentArgument = Annotated[str, typer.Argument(help="The deployment's name; normally the model's.")]
Generation = Annotated[int | None, typer.Option(min=0, help="Only while the deployment is at this generation.")]
Replicas = Annotated[
    int | None, typer.Option(min=0, max=1000, help="How many replicas load it; 0 for every one that fits.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="Only replicas on cpu or cuda; any for all.")]
Quorum = Annotated[
    int | None,
    typer.Option(min=0, max=1000, help="How many must be ready before traffic moves; 0 for more than half."),
]
Weights = Annotated[str | None, typer.Option(help="Percentages of a canary's steps, such as 5,25,50.")]
ApprovalOption = Annotated[
    str | None, typer.Option("--approval", help="none, or manual: rollouts wait until a person approves them.")
]
Automatic = Annotated[
    bool | None, typer.Option("--automatic/--by-hand", help="Roll out what passes its gate by itself, or not.")
]
Compare = Annotated[
    bool | None,
    typer.Option("--compare/--no-compare", help="Ask that a version was compared with the one that serves, or not."),
]

BY_HAND = "asked for on the command line"


@app.command("list")
@command
def list_deployments(as_json: Json = False) -> None:
    """Show every deployment."""
    session = Session(as_json=as_json)
    reply = {"deployments": list(session.rest().pages("/deployments", "deployments"))}
    session.out.data(reply, lambda document: session.out.table(
        ["deployment", "model", "version", "traffic", "rollout"],
        [(one["name"], one["model"], one["version"] or None, traffic(one) or _unserved(one), rollout_line(one))
         for one in document["deployments"]],
        empty="no deployments yet",
    ))  # fmt: skip
    if reply["deployments"]:
        name = reply["deployments"][0]["name"]
        session.out.next(f"millrace deployments show {name}", f"millrace infer {name} TEXT")


@app.command("show")
@command
def show(deployment: DeploymentArgument, as_json: Json = False) -> None:
    """Show one deployment: its traffic, its latest rollout, its health and its newest windows."""
    session = Session(as_json=as_json)
    rest = session.rest()
    reply = rest.get(f"/deployments/{deployment}")
    document = {
        **reply,
        "health": rest.get(f"/deployments/{deployment}/health").get("versions", []),
        "windows": rest.get(f"/deployments/{deployment}/windows", page_size=5).get("windows", []),
        "verdicts": rest.get(f"/deployments/{deployment}/verdicts", page_size=5).get("verdicts", []),
    }
    session.out.data(document, lambda shown: _show(session, shown))


@app.command("create")
@command
def create(  # noqa: PLR0913 - one for each option
    deployment: DeploymentArgument,
    *,
    model: Annotated[str, typer.Option("--model", help="The model whose versions it is to serve.")],
    replicas: Replicas = None,
    device: DeviceOption = None,
    quorum: Quorum = None,
    weights: Weights = None,
    approval: ApprovalOption = None,
    automatic: Automatic = None,
    compare: Compare = None,
    reason: Reason = BY_HAND,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a deployment of a model; it serves nothing until a rollout is started."""
    session = Session(as_json=as_json)
    spec = _Spec(model, replicas, device, quorum, weights, approval, automatic, compare)
    body = {"deployment": deployment, **spec.body(), "reason": reason, "dry_run": dry_run}
    made = session.rest().change("POST", "/deployments", body)
    session.out.data(made, lambda document: _specified(session, document))
    if not dry_run:
        session.out.next(f"millrace deployments rollout {deployment} VERSION", f"millrace models show {model}")


@app.command("change")
@command
def change(  # noqa: PLR0913 - one for each option
    deployment: DeploymentArgument,
    *,
    model: Annotated[str | None, typer.Option("--model", help="Serve versions of this model from now on.")] = None,
    replicas: Replicas = None,
    device: DeviceOption = None,
    quorum: Quorum = None,
    weights: Weights = None,
    approval: ApprovalOption = None,
    automatic: Automatic = None,
    compare: Compare = None,
    reason: Reason = BY_HAND,
    generation: Generation = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change what is given: the model, the replicas, how rollouts go. It is not asked for a confirmation."""
    session = Session(as_json=as_json)
    spec = _Spec(model, replicas, device, quorum, weights, approval, automatic, compare).body()
    if not spec:
        raise CliError("nothing to change was given", hint="millrace deployments change --help shows the options")
    body = {**spec, "reason": reason, "dry_run": dry_run, "expected_generation": generation}
    changed = session.rest().change("PATCH", f"/deployments/{deployment}", body)
    session.out.data(changed, lambda document: _specified(session, document))
    if model is not None and not dry_run and changed.get("serving_model") not in ("", model):
        session.out.next(f"millrace deployments rollout {deployment} VERSION", f"millrace models show {model}")


@app.command("delete")
@command
def delete(
    deployment: DeploymentArgument,
    reason: Reason = BY_HAND,
    generation: Generation = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a stopped deployment away; its history stays."""
    move = _RolloutCommand("Delete", deployment, f"/deployments/{deployment}", reason, generation, method="DELETE")
    session = Session(as_json=as_json)
    _execute(session, move, yes=yes, dry_run=dry_run, following="millrace deployments list")


@app.command("approve")
@command
def approve(
    deployment: DeploymentArgument,
    reason: Reason = BY_HAND,
    generation: Generation = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let a rollout begin that waits for a person."""
    move = _RolloutCommand(
        "Approve the rollout of", deployment, f"/deployments/{deployment}/rollouts:approve", reason, generation
    )
    _execute(Session(as_json=as_json), move, yes=yes, dry_run=dry_run)


@app.command("rollout")
@command
def rollout(
    deployment: DeploymentArgument,
    version: Annotated[str, typer.Argument(help="A number or an alias, such as 2 or @challenger.")],
    *,
    reason: Reason = BY_HAND,
    skip_gate: Annotated[bool, typer.Option("--skip-gate", help="Although the gate refused it.")] = False,
    generation: Generation = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Roll a version out: canary steps first, all traffic once the evidence says so."""
    session = Session(as_json=as_json)
    if skip_gate and not dry_run:
        session.confirm(f"Send traffic of {deployment} to version {version} past its gate?", yes=yes)
    body = {"version": version, "skip_gate": skip_gate, "reason": reason, "dry_run": dry_run}
    body["expected_generation"] = generation
    reply = session.rest().change("POST", f"/deployments/{deployment}/rollouts", body)
    session.out.data(reply, lambda document: _moved(session, document))
    if not dry_run:
        session.out.next(f"millrace deployments show {deployment}", "millrace events tail")


@app.command("rollback")
@command
def rollback(
    deployment: DeploymentArgument,
    reason: Reason = BY_HAND,
    generation: Generation = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """End the rollout under way, or return to the version before the present one."""
    move = _RolloutCommand("Roll back", deployment, f"/deployments/{deployment}:rollback", reason, generation)
    _execute(Session(as_json=as_json), move, yes=yes, dry_run=dry_run)


@app.command("pause")
@command
def pause(
    deployment: DeploymentArgument,
    reason: Reason = BY_HAND,
    generation: Generation = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Hold the rollout at its present step. It is not asked for a confirmation."""
    move = _RolloutCommand("Pause", deployment, f"/deployments/{deployment}/rollouts:pause", reason, generation)
    _execute(Session(as_json=as_json), move, yes=True, dry_run=dry_run)


@app.command("resume")
@command
def resume(
    deployment: DeploymentArgument,
    reason: Reason = BY_HAND,
    generation: Generation = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Go on with a paused rollout. It is not asked for a confirmation."""
    move = _RolloutCommand("Resume", deployment, f"/deployments/{deployment}/rollouts:resume", reason, generation)
    _execute(Session(as_json=as_json), move, yes=True, dry_run=dry_run)


@app.command("promote")
@command
def promote(
    deployment: DeploymentArgument,
    reason: Reason = BY_HAND,
    generation: Generation = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """End the canary now: all traffic moves to the new version."""
    move = _RolloutCommand("Promote", deployment, f"/deployments/{deployment}/rollouts:promote", reason, generation)
    _execute(Session(as_json=as_json), move, yes=yes, dry_run=dry_run)


@app.command("stop")
@command
def stop(
    deployment: DeploymentArgument,
    reason: Reason = BY_HAND,
    generation: Generation = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Serve nothing under the name any more, until a rollout is started again."""
    session = Session(as_json=as_json)
    move = _RolloutCommand("Stop", deployment, f"/deployments/{deployment}:stop", reason, generation)
    _execute(session, move, yes=yes, dry_run=dry_run)
    if not dry_run:
        session.out.next(f"millrace deployments rollout {deployment} @previous")


@dataclass(frozen=True)
class _RolloutCommand:
    verb: str
    deployment: str
    path: str
    reason: str
    generation: int | None
    method: str = "POST"

    def body(self, *, dry_run: bool) -> dict[str, Any]:
        return {"reason": self.reason, "dry_run": dry_run, "expected_generation": self.generation}


@dataclass(frozen=True)
class _Spec:
    """What was given of a specification, as the API has it; what is None was not."""

    model: str | None
    replicas: int | None
    device: str | None
    quorum: int | None
    weights: str | None
    approval: str | None
    automatic: bool | None
    compare: bool | None

    def body(self) -> dict[str, Any]:
        """Raises CliError where the weights are no numbers."""
        policy = None if self.weights is None else {"weights": _read_weights(self.weights)}
        given = {**asdict(self), "weights": None, "policy": policy}
        return {name: value for name, value in given.items() if value is not None}


def _read_weights(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise CliError(f"{text} is no list of percentages", hint="such as --weights 5,25,50")
    return [int(part) for part in parts]


def _execute(session: Session, move: _RolloutCommand, *, yes: bool, dry_run: bool, following: str = "") -> None:
    rest = session.rest()
    if not dry_run:
        session.confirm(f"{move.verb} {move.deployment}?", yes=yes)
    reply = rest.change(move.method, move.path, move.body(dry_run=dry_run))
    session.out.data(reply, lambda document: _moved(session, document))
    if not dry_run:
        session.out.next(following or f"millrace deployments show {move.deployment}")


def traffic(deployment: dict[str, Any]) -> str:
    """Such as `v2 90% (primary, int8), v3 10% (canary, int8)`; with the model where versions are of several."""
    several = len({target.get("model") for target in deployment["targets"]}) > 1
    return ", ".join(
        f"{target['model'] + ' ' if several else ''}v{target['version']} {target['weight']}% "
        f"({target['role']}, {target['precision']})"
        for target in deployment["targets"]
    )


def rollout_line(deployment: dict[str, Any]) -> str:
    """Such as `v3 canary, step 1 of 2`; empty without a rollout."""
    latest = deployment.get("rollout")
    if not latest:
        return ""
    step = f", step {latest['step'] + 1} of {len(latest['weights'])}" if latest["state"] == "canary" else ""
    waits = ", waits for approval" if latest["state"] == "pending" else ""
    return f"v{latest['version']} {latest['state']}{step}{waits}"


def _moved(session: Session, reply: dict[str, Any]) -> None:
    if reply.get("dry_run"):
        session.out.say("dry run: nothing was changed; this is how it would stand")
    session.out.text(f"{reply['name']}, generation {reply['generation']}: {traffic(reply) or _unserved(reply)}")
    if line := rollout_line(reply):
        session.out.text(f"rollout: {line}; {reply['rollout'].get('reason') or ''}")
        if waits_for := reply["rollout"].get("waits_for"):
            session.out.text(f"waits for: {waits_for}")


def _specified(session: Session, deployment: dict[str, Any]) -> None:
    _moved(session, deployment)
    session.out.text(specification(deployment))


def specification(deployment: dict[str, Any]) -> str:
    """Such as `serves topics on every replica; canary 10, 50 %; rollouts start by themselves, after a comparison`."""
    placement = deployment.get("placement") or {}
    device = f" on {placement['device']}" if placement.get("device") else ""
    number = placement.get("replicas") or 0
    where = f"{number} replica{'s' if number > 1 else ''}" if number else "every replica"
    quorum = f", {placement['quorum']} of them ready before traffic moves" if placement.get("quorum") else ""
    weights = (deployment.get("policy") or {}).get("weights") or []
    canary = f"; canary {', '.join(map(str, weights))} %" if weights else ""
    starts = "by themselves" if deployment.get("automatic") else "by hand"
    approved = ", once a person has approved them" if deployment.get("approval") == "manual" else ""
    compared = "" if deployment.get("compare") else ", without a comparison"
    return (
        f"serves {deployment['model']} on {where}{device}{quorum}{canary}; rollouts start {starts}{approved}{compared}"
    )


def _unserved(reply: dict[str, Any]) -> str:
    if reply.get("deleted"):
        return "deleted"
    return "stopped, nothing is served" if reply.get("stopped") else "nothing served yet"


def _show(session: Session, reply: dict[str, Any]) -> None:
    _specified(session, reply)
    session.out.table(
        ["version", "requests", "errors", "p50 ms", "p99 ms", "labelled", "accuracy"],
        [
            (one["version"], one["requests"], one["errors"], one["latency_p50_ms"], one["latency_p99_ms"],
             one["labelled"], one["accuracy"] if one["labelled"] else None)
            for one in reply["health"]
        ],
        empty="no requests yet",
    )  # fmt: skip
    show_windows(session, reply["windows"])
    show_verdicts(session, reply["verdicts"])


for shown_by_monitor in (windows, window, verdicts):
    app.command()(command(shown_by_monitor))
