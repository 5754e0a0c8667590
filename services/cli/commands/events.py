"""`millrace events ...`: what is told on the topics, and telling something oneself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.cli.brokers import bootstrap_of
from services.cli.consumer import ReceivedEvent, Watcher
from services.cli.descriptions import in_words
from services.cli.errors import CliError, Exit
from services.cli.filters import event_filter, read_time
from services.cli.launcher.topics import load_topics
from services.cli.output import printable
from services.cli.session import DryRun, Json, Session, Yes, command, subcommands
from services.contracts.topics import DLQ_SUFFIX

app = subcommands(help="What is told on the topics. KAFKA_BOOTSTRAP_SERVERS names a broker elsewhere.")

LOUD: Final = frozenset({"inference.logged", "feedback.received", "replica.reported"})
"""Left out unless named: many a second."""
BY_GATEWAY: Final = "gateway"
"""Its topics are for outside producers too; every other has one owner who alone should speak on it."""

TopicArgument = Annotated[str, typer.Argument(help="The topic, as 'millrace events topics' shows it.")]


@app.command("tail")
@command
def tail(
    topics: Annotated[list[str] | None, typer.Argument(help="Topics; without any all but the loud ones.")] = None,
    *,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="What was told before too.")] = False,
    since: Annotated[str, typer.Option(help="From 90s, 10m, 2h or 1d ago on, or from a time.")] = "",
    key: Annotated[str, typer.Option(help="With this key only.")] = "",
    match: Annotated[
        list[str] | None, typer.Option(help="FIELD=VALUE: a field of the event, such as rollout.state, or a header.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="End after this many; 0 for no end.")] = 0,
    until_idle: Annotated[bool, typer.Option("--once", help="End when nothing more comes for a second.")] = False,
    dead_letters: Annotated[bool, typer.Option("--dead-letters", help="The dead letters too.")] = False,
    as_json: Json = False,
) -> None:
    """Show events as they come, until Ctrl-C."""
    from services.kit.core.clock import SystemClock

    session, is_selected = Session(as_json=as_json), event_filter(key, match or ())
    chosen = chosen_topics(topics, dead_letters=dead_letters)
    begin = read_time(since, SystemClock().now()) if since else None
    watcher = Watcher(bootstrap_of(session.home), chosen, from_beginning=from_beginning, since=begin)
    shown = 0
    try:
        while not limit or shown < limit:
            event = watcher.poll(1.0)
            if event is not None and is_selected(event):
                session.out.line(event.document(), line_of(event))
                shown += 1
            elif event is None and until_idle:
                return
    finally:
        watcher.close()


@app.command("topics")
@command
def topics(as_json: Json = False) -> None:
    """Show every topic: who tells it to whom, its key, its partitions, and what it says."""
    from services.contracts.consumers import CONSUMERS
    from services.contracts.events import EVENTS

    session = Session(as_json=as_json)
    partitions = {topic.name: topic.partitions for topic in load_topics()}
    reply = [
        {
            "topic": event.topic,
            "owner": event.owner,
            "consumers": list(CONSUMERS.get(event.topic, ())),
            "key": event.key_field,
            "partitions": partitions.get(event.topic),
            "compacted": event.compacted,
            "type": event.type_name(),
            "dead_letters": event.topic + DLQ_SUFFIX,
            "says": (event.__doc__ or "").strip().splitlines()[0],
        }
        for event in EVENTS
    ]
    session.out.data({"topics": reply}, lambda document: session.out.table(
        ["topic", "owner", "consumers", "key", "partitions", "says"],
        [
            (one["topic"], one["owner"], ", ".join(one["consumers"]), one["key"], one["partitions"], one["says"])
            for one in document["topics"]
        ],
    ))  # fmt: skip
    session.out.next("millrace events schema dataset.ready --example", "millrace events tail")


@app.command("schema")
@command
def schema(
    topic: TopicArgument,
    example: Annotated[bool, typer.Option("--example", help="An event that validates, in its place.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="With --example: every field, not only the needed ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the JSON Schema of a topic's events, or an example. It is JSON with and without --json."""
    from services.cli.examples import example as example_of
    from services.cli.validation import event_of
    from services.contracts.schemas import event_schema

    session, event = Session(as_json=True), event_of(topic)
    session.out.data(example_of(event, full=full) if example else event_schema(event), lambda _: None)


@app.command("validate")
@command
def validate(
    file: Annotated[Path, typer.Argument(help="A file with one event, or one a line; - for standard input.")],
    topic: Annotated[str, typer.Option(help="Of this topic; a structured CloudEvent tells it itself.")] = "",
    as_json: Json = False,
) -> None:
    """Check events before they are sent: plain JSON or structured CloudEvents.

    Exit code 0 when all are events, 1 when one is not, 2 for a file that cannot be read or an unknown topic.
    """
    from services.cli.input import read_bytes
    from services.cli.validation import check, events_in

    session = Session(as_json=as_json)
    matches = [check(content, topic, line=line) for line, content in events_in(read_bytes(file))]
    reply = {"valid": all(one.valid for one in matches), "events": [one.document() for one in matches]}
    session.out.data(reply, lambda document: _show_checked(session, document["events"]))
    if not reply["valid"]:
        raise typer.Exit(int(Exit.FAILED))
    session.out.next(f"millrace events send {matches[0].topic} {file}")


@app.command("send")
@command
def send(
    topic: TopicArgument,
    file: Annotated[
        Path | None, typer.Argument(help="The event as plain JSON or structured CloudEvent; - for standard input.")
    ] = None,
    *,
    field: Annotated[
        list[str] | None, typer.Option("--field", "-f", help="NAME=VALUE, once for each; recipe.epochs=3 goes inside.")
    ] = None,
    event_id: Annotated[str, typer.Option("--id", help="Its id; the same id twice has one effect.")] = "",
    source: Annotated[str, typer.Option(help="Who says so; millrace/cli where nothing is told.")] = "",
    tenant: Annotated[str, typer.Option(help="Whose event it is.")] = "",
    traceparent: Annotated[str, typer.Option(help="The W3C trace that it belongs to; a new one without.")] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send an event, as a CloudEvent in binary mode, and wait until the broker has it.

    Exit code 0 when the broker has it, 1 when it is no event of the topic, 2 for wrong usage, 3 without a broker.
    """
    from services.cli.composition import body_of, message_of
    from services.cli.producer import RecordSender
    from services.cli.validation import event_of

    session, owner = Session(as_json=as_json), event_of(topic).owner
    if file is None and not field:
        hint = f"millrace events schema {topic} --example > FILE"
        raise CliError("there is nothing to send: name a file or --field", hint=hint, status=Exit.USAGE)
    attributes, body = body_of(file, field or ())
    named = {"id": event_id, "source": source, "tenant": tenant, "traceparent": traceparent}
    message = message_of(topic, body, {**attributes, **{name: value for name, value in named.items() if value}})
    reply = _record(message)
    if not dry_run:
        if owner != BY_GATEWAY:
            session.confirm(f"Only the {owner} tells {topic}, and others act on it. Send it all the same?", yes=yes)
        placed = RecordSender(bootstrap_of(session.home))([message])[0]
        reply |= {"partition": placed.partition, "offset": placed.offset}
    session.out.data(reply, lambda document: _show_record(session, document))
    if not dry_run:
        session.out.next(f"millrace trace {reply['trace_id']}", f"millrace events tail {topic} --since 1m")


def chosen_topics(named: list[str] | None, *, dead_letters: bool) -> list[str]:
    """Raises CliError for a topic that is none of ours."""
    known = [topic.name for topic in load_topics()]
    for name in named or ():
        if name not in known:
            hint = ", ".join(topic for topic in known if not topic.endswith(DLQ_SUFFIX))
            raise CliError(f"there is no topic {name}", hint=f"one of {hint}", code="unknown_topic", status=Exit.USAGE)
    plain = named or [name for name in known if name not in LOUD and not name.endswith(DLQ_SUFFIX)]
    dead = [name for name in known if name.endswith(DLQ_SUFFIX)] if dead_letters else []
    if named:
        dead = [name for name in dead if name.removesuffix(DLQ_SUFFIX) in named]
    return list(dict.fromkeys([*plain, *dead]))


def line_of(event: ReceivedEvent) -> str:
    """Time, topic, source, words."""
    source = printable(event.source.removeprefix("millrace/"))
    reply = f"{event.topic:<20} {source:<10} {printable(in_words(event))}"
    return f"{event.time.astimezone():%H:%M:%S.%f}"[:-3] + f"  {reply}"


def _record(message: Any) -> dict[str, Any]:
    """A record as it goes over the wire."""
    import json

    headers = dict(message.headers)
    return {
        "topic": message.topic,
        "key": message.key.decode(),
        "id": headers["ce_id"],
        "trace_id": headers["traceparent"].split("-")[1] if "traceparent" in headers else "",
        "headers": headers,
        "event": json.loads(message.value),
    }


def _show_record(session: Session, reply: dict[str, Any]) -> None:
    import json

    where = (
        f"{reply['topic']}/{reply['partition']}/{reply['offset']}"
        if "offset" in reply
        else f"{reply['topic']} (not sent)"
    )
    for name, value in (
        ("record", where),
        ("key", reply["key"]),
        ("id", reply["id"]),
        ("trace", reply["trace_id"]),
    ):
        session.out.text(f"{name:<8} {printable(value)}")
    if "offset" not in reply:
        session.out.text("".join(f"  {name}: {value}\n" for name, value in reply["headers"].items()).rstrip())
        session.out.text(json.dumps(reply["event"], indent=2, ensure_ascii=False))


def _show_checked(session: Session, events: Sequence[dict[str, Any]]) -> None:
    for one in events:
        position = f"line {one['line']}: " if len(events) > 1 else ""
        if one["valid"]:
            named = f", id {one['id']}" if one["id"] else ""
            session.out.text(printable(f"{position}{one['topic']} of {one['key']}{named} ({one['form']})"))
        for problem in one["problems"]:
            name = f"{problem['field']}: " if problem["field"] else ""
            session.out.text(printable(f"{position}{name}{problem['message']} ({problem['by']})"))
            if problem["hint"]:
                session.out.text(f"  try: {problem['hint']}")
        for name in one["ignored"]:
            session.out.text(f"{position}{printable(name)}: no consumer knows this field; it would be ignored")
