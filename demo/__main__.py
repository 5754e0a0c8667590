"""`make demo`, and `python -m demo`: the whole scenario on this machine, in a checkout."""

import asyncio
from typing import Annotated

import typer

from demo.scenario import run_scenario
from services.cli.commands.fleet import BrokerOption, chosen_broker
from services.cli.errors import CliError
from services.cli.launcher.launch import is_running
from services.cli.session import Json, Session, command

app = typer.Typer(name="demo", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
@command
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.", envvar="KEEP")] = False,
    broker: BrokerOption = None,
    as_json: Json = False,
) -> None:
    """Run the loop: train, roll out, serve, drift, retrain, roll out again, and refuse a bad version."""
    session = Session(as_json=as_json)
    if is_running(session.home):
        raise CliError("the demo starts Millrace itself, and it runs already", hint="millrace down")
    kind, bootstrap = chosen_broker(broker)
    asyncio.run(run_scenario(session, kind, bootstrap, keep=keep))


if __name__ == "__main__":
    app()
