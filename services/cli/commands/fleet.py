"""`millrace up`, `down` and `status`."""

import asyncio
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from services.cli import data_folder
from services.cli.brokers import BOOTSTRAP_SETTING
from services.cli.errors import CliError, Exit, NotRunning
from services.cli.launcher import launch
from services.cli.launcher.fleet import BrokerKind
from services.cli.launcher.state import READY, FleetState
from services.cli.session import Json, Session, command
from services.kit.core.clock import SystemClock


class Broker(StrEnum):
    EMBEDDED = "embedded"
    KAFKA = "kafka"
    EXTERNAL = "external"


BrokerOption = Annotated[
    Broker | None,
    typer.Option(help="embedded (in memory), kafka (Apache Kafka; needs Java and Maven) or external (one that runs)."),
]
BROKER_SETTING: Final = "MILLRACE_BROKER"


def chosen_broker(chosen: Broker | None, environment: Mapping[str, str] = os.environ) -> tuple[BrokerKind, str]:
    """The kind of broker, and the address of an external one.

    Without a choice MILLRACE_BROKER decides, then KAFKA_BOOTSTRAP_SERVERS; the embedded one is the default.
    Raises CliError for an unknown kind, and for an external one without an address.
    """
    bootstrap = environment.get(BOOTSTRAP_SETTING, "")
    named = chosen.value if chosen is not None else environment.get(BROKER_SETTING) or ""
    kind = named or ("external" if bootstrap else "embedded")
    if kind not in set(Broker):
        raise CliError(f"{BROKER_SETTING} is {kind}: it must be one of {', '.join(Broker)}", status=Exit.USAGE)
    if kind == "external" and not bootstrap:
        raise CliError("an external broker needs its address", hint=f"set {BOOTSTRAP_SETTING}", status=Exit.USAGE)
    return Broker(kind).value, bootstrap if kind == "external" else ""


@command
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything answers.")] = False,
    broker: BrokerOption = None,
    as_json: Json = False,
) -> None:
    """Start the broker and the five services, and wait until they answer."""
    session = Session(as_json=as_json)
    kind, bootstrap = chosen_broker(broker)
    asyncio.run(_up(session, launch.LaunchOptions(kind, bootstrap, detach=detach)))


async def _up(session: Session, expected: launch.LaunchOptions) -> None:
    home, clock = session.home, SystemClock()
    if launch.is_running(home):
        raise CliError(f"Millrace runs already in {home.root}", hint="millrace status", code="already_running")
    started = clock.monotonic()
    data_folder.belongs_to_user(home)
    state = await start(session, expected)
    session.out.say(f"ready after {clock.monotonic() - started:.1f} s")
    document = await launch.describe(home, state)
    session.out.data(document, lambda reply: _show(session, reply))
    if expected.detach:
        session.out.next("millrace status", "millrace doctor", "millrace down")
        return
    session.out.say("Ctrl-C stops everything")
    try:
        while launch.is_running(home):
            await clock.sleep(0.5)
    finally:
        await launch.stop(home, clock, lambda _: None)


async def start(session: Session, expected: launch.LaunchOptions) -> FleetState:
    """Starts the fleet, telling each part as it becomes ready. Raises CliError with the reason."""
    seen: dict[str, str] = {}

    def progress(state: FleetState) -> None:
        for part in state.parts:
            if part.state == READY and seen.get(part.name) != READY:
                session.out.say(f"  {part.name} is ready{f' ({state.broker})' if part.name == 'broker' else ''}")
            seen[part.name] = part.state

    session.out.say(f"starting in {session.home.root}")
    try:
        return await launch.start(session.home, expected, SystemClock(), progress)
    except launch.LaunchFailed as failed:
        raise CliError(str(failed), hint="millrace doctor", code="start_failed") from failed


@command
def down(as_json: Json = False) -> None:
    """Stop everything, in order."""
    session = Session(as_json=as_json)
    stopped = asyncio.run(launch.stop(session.home, SystemClock(), lambda _: None))
    session.out.data(
        {"stopped": stopped}, lambda reply: print("stopped" if reply["stopped"] else "nothing was running")
    )
    if stopped:
        session.out.next("millrace up --detach")


@command
def status(as_json: Json = False) -> None:
    """Show what runs, where it answers, and whether it is well."""
    session = Session(as_json=as_json)
    state = launch.running_state(session.home)
    if state is None:
        if as_json:
            session.out.data({"state": "stopped", "home": str(session.home.root)}, lambda _: None)
        raise NotRunning
    document = asyncio.run(launch.describe(session.home, state))
    session.out.data(document, lambda reply: _show(session, reply))
    if document["state"] == READY:
        session.out.next("millrace deployments list", "millrace runs list")


def _show(session: Session, reply: dict[str, Any]) -> None:
    rows = [
        (name, part["health"], part["http"], part["grpc"], part["pid"], part["restarts"])
        for name, part in reply["services"].items()
    ]
    session.out.table(["service", "health", "http", "grpc", "pid", "restarts"], rows)
    for name, address in reply["endpoints"].items():
        session.out.text(f"{name:<8} {address}")
    session.out.text(f"API key  {reply['api_key_file']}")
    session.out.text(f"broker   {reply['broker']}")
    session.out.text(f"logs     {reply['logs']}")
