"""`millrace dlq ...`: events that were given up, and sending them again without doubling effects."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from services.cli.brokers import bootstrap_of
from services.cli.errors import CliError, Exit
from services.cli.filters import read_time
from services.cli.letters import DeadLetter, chosen_topics, named_letter, read_letters, topic_of
from services.cli.output import printable
from services.cli.reading import edited, read_bytes
from services.cli.session import DryRun, Json, Session, Yes, command, subcommands

if TYPE_CHECKING:
    from services.cli.replaying import Planned

app = subcommands(help="Dead letters: events that a service gave up.")

SHOWN_BYTES: Final = 4_000
HEX_WIDTH: Final = 16
AGES: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))

Code = Annotated[str, typer.Option(help="With this reason code only, such as malformed_event.")]
Since = Annotated[str, typer.Option(help="From 90s, 10m, 2h or 1d ago on, or from a time.")]
Letters = Annotated[list[str] | None, typer.Argument(help="Letters, as 'millrace dlq list' names them.")]


@app.command("list")
@command
def list_letters(
    topic: Annotated[str, typer.Argument(help="Of this topic only.")] = "",
    code: Code = "",
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that were not replayed.")] = False,
    since: Since = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest this many.")] = 100,
    as_json: Json = False,
) -> None:
    """Show dead letters, the oldest first, and what became of them."""
    session, now = Session(as_json=as_json), _now()
    found = _read(session, chosen_topics(topic), since)
    kept = [letter for letter in found if _matches(letter, code) and not (waiting and letter.replayed_at)]
    told = {"letters": [letter.document(now) for letter in kept[-limit:]], "all": len(kept)}
    session.out.data(told, lambda document: session.out.table(
        ["letter", "code", "tries", "age", "key", "event", "by", "status"],
        [
            (one["letter"], one["code"], one["tries"], age(one["age_seconds"]), one["key"][:40],
             _short(one["event_id"]), one["by"], _status(one))
            for one in document["letters"]
        ],
        empty="no dead letters",
    ))  # fmt: skip
    if len(kept) > limit:
        session.out.say(f"{len(kept) - limit} older ones are not shown; --limit shows more")
    if kept:
        session.out.next(f"millrace dlq show {kept[-1].name}", f"millrace dlq replay {kept[-1].name} --dry-run")


@app.command("show")
@command
def show(
    letter: Annotated[str, typer.Argument(help="The letter, as 'millrace dlq list' names it.")],
    whole: Annotated[bool, typer.Option("--whole", help="The body without a limit.")] = False,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why it is one, its headers and its body."""
    session = Session(as_json=as_json)
    found = named_letter(letter, _read(session, [topic_of(letter)]))
    form, body = readable(found.seen.value, None if whole else SHOWN_BYTES)
    document = {**found.document(_now()), "headers": found.seen.headers, "body_form": form, "body": body}
    session.out.data(document, lambda told: _show(session, told))
    session.out.next(f"millrace dlq replay {found.name}")


@app.command("replay")
@command
def replay(  # noqa: PLR0913 - one for each way of choosing and of sending
    letters: Letters = None,
    *,
    code: Code = "",
    topic: Annotated[str, typer.Option(help="Of this topic only.")] = "",
    since: Since = "",
    every: Annotated[bool, typer.Option("--all", help="Every letter that was not replayed yet.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those that were replayed before, too.")] = False,
    edit: Annotated[bool, typer.Option("--edit", help="Correct the body in your editor; one letter.")] = False,
    body: Annotated[
        Path | None, typer.Option(help="A corrected body, as a file or - for standard input; one letter.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send dead letters again: original bytes, key and headers, so that no effect is doubled.

    A corrected body (--edit, --body) is an event of its own, which names the first one as its cause.
    Exit code 1 when a letter that was named cannot be sent again, 4 when it is not there.
    """
    from services.cli.replaying import carry_out
    from services.cli.sending import RecordSender

    session = Session(as_json=as_json)
    bootstrap, now = bootstrap_of(session.home), _now()
    chosen = _chosen(session, letters or [], code=code, topic=topic, every=every, since=since)
    if edit or body is not None:
        planned = [_correction(chosen, body, now, again=again)]
    else:
        planned = _plan(bootstrap, chosen, now, again=again)
    going = [one for one in planned if one.message is not None]
    told: dict[str, Any] = {"letters": [one.document() for one in planned], "sent": 0, "dry_run": dry_run}
    if going and not dry_run:
        session.confirm(f"Send {len(going)} of {len(planned)} dead letters again?", yes=yes)
        told["sent"] = carry_out(planned, RecordSender(bootstrap), now)
    session.out.data(told, lambda document: _show_replay(session, document))
    if going and not dry_run:
        session.out.next(f"millrace dlq list {going[0].letter.topic}", f"millrace events tail {going[0].letter.topic}")
    if letters and len(going) < len(planned):
        raise typer.Exit(int(Exit.FAILED))


def _read(session: Session, topics: list[str], since: str = "") -> list[DeadLetter]:
    """Raises CliError."""
    begin = read_time(since, _now()) if since else None
    found, passed_over = read_letters(bootstrap_of(session.home), topics, begin)
    if passed_over:
        session.out.say(f"{passed_over} older records were passed over: there are too many to hold; --since narrows")
    return found


def _chosen(session: Session, names: list[str], *, code: str, topic: str, every: bool, since: str) -> list[DeadLetter]:
    """Raises CliError where nothing, or too much, was chosen."""
    if bool(names) == bool(code or topic or every or since):
        message = "name the letters, or choose them with --code, --topic, --since or --all"
        raise CliError(message, hint="millrace dlq list", code="nothing_chosen", status=Exit.USAGE)
    if names:
        found = _read(session, sorted({topic_of(name) for name in names}))
        return [named_letter(name, found) for name in dict.fromkeys(names)]
    return [letter for letter in _read(session, chosen_topics(topic), since) if _matches(letter, code)]


def _plan(bootstrap: str, chosen: list[DeadLetter], now: datetime, *, again: bool) -> "list[Planned]":
    from services.cli.replaying import latest_of, plan

    return plan(chosen, again=again, now=now, latest=latest_of(bootstrap, chosen))


def _correction(chosen: list[DeadLetter], body: Path | None, now: datetime, *, again: bool) -> "Planned":
    """Raises CliError for several letters, no change, or a body that is no event."""
    from services.cli.replaying import content, corrected

    if len(chosen) != 1:
        message = f"a correction is for one letter, and {len(chosen)} are chosen"
        raise CliError(message, code="not_one_letter", status=Exit.USAGE)
    if body is not None:
        return corrected(chosen[0], read_bytes(body), now, again=again)
    before = content(chosen[0]).decode("utf-8", "replace")
    after = edited(before)
    if after == before:
        raise CliError("the body was not changed, and nothing was sent", code="not_changed")
    return corrected(chosen[0], after.encode(), now, again=again)


def readable(value: bytes, most: int | None) -> tuple[str, str]:
    """How a body is shown, and the body: JSON indented, other text as it is, bytes as a hex dump; cut at `most`."""
    import json

    try:
        text = value.decode()
    except UnicodeDecodeError:
        shown = value if most is None else value[: most // 4]
        lines = [_hex(start, shown[start : start + HEX_WIDTH]) for start in range(0, len(shown), HEX_WIDTH)]
        return "hex", "\n".join(lines) + _left_out(len(value), len(shown), "bytes")
    try:
        form, text = "json", json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        form = "text"
    text = printable(text)
    return form, text if most is None else text[:most] + _left_out(len(text), most, "characters")


def age(seconds: float) -> str:
    """In the largest unit of which it has two, or so."""
    for length, unit in AGES:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _hex(start: int, row: bytes) -> str:
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
    return f"{start:08x}  {row.hex(' '):<{3 * HEX_WIDTH}} {text}"


def _left_out(whole: int, shown: int, unit: str) -> str:
    return f"\n... {whole - shown} {unit} more; --whole shows them" if whole > shown else ""


def _matches(letter: DeadLetter, code: str) -> bool:
    return code in ("", letter.code)


def _status(told: dict[str, Any]) -> str:
    return f"{told['status']} as {told['failed_again']}" if told["failed_again"] else str(told["status"])


def _short(event: str) -> str:
    return event if len(event) <= 32 else f"{event[:24]}…"


def _show(session: Session, told: dict[str, Any]) -> None:
    for name in ("letter", "status", "code", "reason", "tries", "by", "key", "event_id", "trace_id", "buried_at"):
        session.out.text(f"{name:<12} {printable(str(told[name])) if told[name] not in (None, '') else '-'}")
    for name in ("replay_of", "replayed_at", "replayed_as", "failed_again", "cut_from"):
        if told[name]:
            session.out.text(f"{name:<12} {printable(str(told[name]))}")
    session.out.text("headers")
    for name, value in told["headers"].items():
        session.out.text(f"  {printable(name)}: {printable(value[:SHOWN_BYTES])}")
    session.out.text(f"body ({told['bytes']} bytes, {told['body_form']})")
    session.out.text(told["body"])


def _show_replay(session: Session, told: dict[str, Any]) -> None:
    for one in told["letters"]:
        going = "would be sent" if told["dry_run"] else "sent"
        said = f"left out, {one['skipped']}: {one['why']}" if one["skipped"] else f"{going} as {one['event_id']}"
        session.out.text(f"{one['letter']}  {printable(said)}")
    if not told["letters"]:
        session.out.text("no dead letters")
    elif not told["dry_run"]:
        session.out.text(f"records sent: {told['sent']}")


def _now() -> datetime:
    from services.kit.core.clock import SystemClock

    return SystemClock().now()
