"""`millrace events ...`: what is told on the topics."""

from typing import Annotated, Final

import typer

from services.cli.errors import CliError, Exit, NotRunning
from services.cli.launcher.launch import running_state
from services.cli.launcher.topics import DEAD_LETTER_SUFFIX, load_topics
from services.cli.session import Json, Session, command, subcommands
from services.cli.telling import in_words
from services.cli.watching import Seen, Watcher

app = subcommands(help="What is told on the topics.")

LOUD: Final = frozenset({"inference.logged", "feedback.received", "replica.reported"})
"""Left out unless named: many a second."""


@app.command("tail")
@command
def tail(
    topics: Annotated[list[str] | None, typer.Argument(help="Topics; without any all but the loud ones.")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="What was told before too.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when nothing more comes for a second.")] = False,
    dead_letters: Annotated[bool, typer.Option("--dead-letters", help="The dead letters too.")] = False,
    as_json: Json = False,
) -> None:
    """Show events as they come, until Ctrl-C."""
    session = Session(as_json=as_json)
    watcher = Watcher(
        _bootstrap(session), chosen_topics(topics, dead_letters=dead_letters), from_beginning=from_beginning
    )
    try:
        while True:
            event = watcher.poll(1.0)
            if event is not None:
                session.out.line(event.document(), line_of(event))
            elif once:
                return
    finally:
        watcher.close()


def chosen_topics(named: list[str] | None, *, dead_letters: bool) -> list[str]:
    """Raises CliError for a topic that is none of ours."""
    known = [topic.name for topic in load_topics()]
    for name in named or ():
        if name not in known:
            hint = ", ".join(topic for topic in known if not topic.endswith(DEAD_LETTER_SUFFIX))
            raise CliError(f"there is no topic {name}", hint=f"one of {hint}", code="unknown_topic", status=Exit.USAGE)
    plain = named or [name for name in known if name not in LOUD and not name.endswith(DEAD_LETTER_SUFFIX)]
    return [*plain, *(name for name in known if name.endswith(DEAD_LETTER_SUFFIX) and dead_letters)]


def line_of(event: Seen) -> str:
    """Time, topic, source, words."""
    source = event.source.removeprefix("millrace/")
    return f"{event.time.astimezone():%H:%M:%S.%f}"[:-3] + f"  {event.topic:<20} {source:<10} {in_words(event)}"


def _bootstrap(session: Session) -> str:
    state = running_state(session.home)
    if state is None or "kafka" not in state.endpoints:
        raise NotRunning
    return state.endpoints["kafka"]
