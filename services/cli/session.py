"""What a command works with: its output, the data folder, and the gateway when it asks for it."""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ParamSpec

import typer

from services.cli.errors import CliError
from services.cli.home import Home
from services.cli.output import Output
from services.cli.rest import Rest, address_and_key

P = ParamSpec("P")

Json = Annotated[bool, typer.Option("--json", help="Data as JSON on standard output.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many at most.")]
Page = Annotated[str, typer.Option(help="Go on where this token says; the page before tells it.")]
RecipeJson = Annotated[str, typer.Option("--recipe", help='How to train, as JSON, such as {"epochs": 3}.')]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the history.")]


class Session:
    """Made by each command for itself."""

    def __init__(self, *, as_json: bool) -> None:
        self.out = Output(as_json=as_json)
        self.home = Home.of()

    def rest(self) -> Rest:
        """Raises NotRunning."""
        return Rest(*address_and_key(self.home))

    def confirm(self, prompt: str, *, yes: bool) -> None:
        """Returns when the answer is yes. Raises CliError on no, and where there is nobody to ask."""
        import sys

        if yes:
            return
        if not sys.stdin.isatty():
            raise CliError(f"{prompt} Nobody is there to answer.", hint="add --yes", code="not_confirmed")
        if not typer.confirm(prompt, err=True):
            raise CliError("Nothing was changed.", code="not_confirmed")


def more(session: Session, typed: str, listing: Mapping[str, Any]) -> None:
    """Says how to go on with a listing that has another page."""
    if token := listing.get("next_page_token"):
        session.out.next(f"{typed} --page {token}")


def subcommands(help: str) -> typer.Typer:  # noqa: A002 - typer's own word
    """A group of commands. Help is plain text: drawing it with rich takes longer than most commands do."""
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)


def command(work: Callable[P, None]) -> Callable[P, None]:
    """A command whose CliError becomes a message and an exit code; Ctrl-C becomes 130."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            work(*args, **kwargs)
        except CliError as error:
            Output(as_json=bool(kwargs.get("as_json"))).error(error)
            raise typer.Exit(int(error.status)) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run
