"""`millrace demo`: the whole story, played on this machine."""

import asyncio
from typing import Annotated

import typer

from services.cli.commands.fleet import BrokerOption, wanted_broker
from services.cli.errors import CliError
from services.cli.launcher.launch import is_running
from services.cli.session import Json, Session, command


@command
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.", envvar="KEEP")] = False,
    broker: BrokerOption = None,
    as_json: Json = False,
) -> None:
    """Play the loop: train, roll out, serve, drift, retrain, roll out again, and refuse a bad version."""
    session = Session(as_json=as_json)
    if is_running(session.home):
        raise CliError("the demo starts Millrace itself, and it runs already", hint="millrace down")
    from services.cli.demo.scenario import play

    kind, bootstrap = wanted_broker(broker)
    asyncio.run(play(session, kind, bootstrap, keep=keep))
