"""`millrace dlq ...`: events that services gave up, and sending them again without doubling effects."""

import base64
import json
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from services.cli.errors import CliError, Exit
from services.cli.filters import read_time
from services.cli.input import edited, read_bytes
from services.cli.output import printable
from services.cli.rest import Rest
from services.cli.session import DryRun, Json, Session, Yes, command, subcommands
from services.contracts.topics import DLQ_SUFFIX

app = subcommands(help="Dead letters: events that a service gave up.")

SHOWN_BYTES: Final = 4_000
HEX_WIDTH: Final = 16
AGES: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))
LARGEST_PAGE: Final = 200
REDELIVER: Final = "/dead-letters:redeliver"

Code = Annotated[str, typer.Option(help="With this reason code only, such as malformed_event.")]
Since = Annotated[str, typer.Option(help="From 90s, 10m, 2h or 1d ago on, or from a time.")]
Letters = Annotated[list[str] | None, typer.Argument(help="Letters, as 'millrace dlq list' names them.")]


@app.command("list")
@command
def list_letters(
    topic: Annotated[str, typer.Argument(help="Of this topic only.")] = "",
    code: Code = "",
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that were not redelivered.")] = False,
    since: Since = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest this many.")] = 100,
    as_json: Json = False,
) -> None:
    """Show dead letters, the oldest first, and what became of them."""
    session, now = Session(as_json=as_json), _now()
    query = {"topic": topic, "code": code, "since": _since(since, now), "waiting": "true" if waiting else ""}
    with closing(session.rest()) as rest:
        pages = rest.each_page("/dead-letters", **query, page_size=min(limit, LARGEST_PAGE))
        first = next(pages)
        rows = (one for page in chain([first], pages) for one in page["dead_letters"])
        dead_letters = [_with_age(one, now) for one in islice(rows, limit)][::-1]
    total, not_read = first["total"], first["not_read"]
    document = {"dead_letters": dead_letters, "total": total, "not_read": not_read}
    session.out.data(document, lambda shown: session.out.table(
        ["letter", "code", "tries", "age", "key", "event", "by", "status"],
        [
            (one["address"], one["code"], one["tries"], age(one["age_seconds"]), one["key"][:40],
             _short(one["event_id"]), one["by"], _status(one))
            for one in shown["dead_letters"]
        ],
        empty="no dead letters",
    ))  # fmt: skip
    if total > len(dead_letters):
        session.out.say(f"{total - len(dead_letters)} older ones are not shown; --limit shows more")
    if not_read:
        session.out.say(f"{not_read} older records were not read: there are too many to hold; --since narrows")
    if dead_letters:
        newest = dead_letters[-1]["address"]
        session.out.next(f"millrace dlq show {newest}", f"millrace dlq redeliver {newest} --dry-run")


@app.command("show")
@command
def show(
    dead_letter: Annotated[str, typer.Argument(help="The letter, as 'millrace dlq list' names it.")],
    full: Annotated[bool, typer.Option("--whole", help="The body without a limit.")] = False,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why it is one, its headers and its body."""
    session = Session(as_json=as_json)
    with closing(session.rest()) as rest:
        content = _content(rest, dead_letter)
    body = base64.b64decode(content["body"])
    form, text = readable(body, None if full else SHOWN_BYTES)
    document = {
        **_with_age(content["dead_letter"], _now()),
        "headers": content["headers"],
        "body_form": form,
        "body": text,
    }
    session.out.data(document, lambda shown: _show(session, shown))
    session.out.next(f"millrace dlq redeliver {content['dead_letter']['address']}")


@app.command("redeliver")
@command
def redeliver(  # noqa: PLR0913 - one for each way of choosing and of sending
    dead_letters: Letters = None,
    *,
    code: Code = "",
    topic: Annotated[str, typer.Option(help="Of this topic only.")] = "",
    since: Since = "",
    every: Annotated[bool, typer.Option("--all", help="Every letter that was not redelivered yet.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those that were redelivered before, too.")] = False,
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
    session = Session(as_json=as_json)
    names = [_full_name(name) for name in dead_letters or []]
    if bool(names) == bool(code or topic or every or since):
        message = "name the letters, or choose them with --code, --topic, --since or --all"
        raise CliError(message, hint="millrace dlq list", code="nothing_chosen", status=Exit.USAGE)
    selection = {"addresses": names} if names else {"code": code, "topic": topic, "since": _since(since, _now())}
    with closing(session.rest()) as rest:
        corrected = _corrected(rest, names, body, edit=edit)
        request = _sent({**selection, "all": every, "again": again, "corrected_body": corrected})
        planned = rest.post(REDELIVER, {**request, "dry_run": True})
        going = [one for one in planned["redeliveries"] if not one["skipped"]]
        outcome = planned
        if going and not dry_run:
            session.confirm(f"Send {len(going)} of {len(planned['redeliveries'])} dead letters again?", yes=yes)
            outcome = rest.change("POST", REDELIVER, {**request, "dry_run": False})
    outcome["dry_run"] = dry_run
    session.out.data(outcome, lambda document: _show_redelivery(session, document))
    if going and not dry_run:
        sent_to = going[0]["address"].partition("/")[0]
        session.out.next(f"millrace dlq list {sent_to}", f"millrace events tail {sent_to}")
    if names and len(going) < len(planned["redeliveries"]):
        raise typer.Exit(int(Exit.FAILED))


def _sent(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if value not in (None, "", [])}


def _full_name(name: str) -> str:
    """With the topic that the event was on. Raises CliError for what is no name of a letter."""
    topic, _, position = name.partition("/")
    parts = position.split("/")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        hint = "a letter is named TOPIC/PARTITION/OFFSET, as 'millrace dlq list' shows it"
        raise CliError(f"{name} is not the name of a letter", hint=hint, code="not_a_letter", status=Exit.USAGE)
    return f"{topic.removesuffix(DLQ_SUFFIX)}/{position}"


def _content(rest: Rest, name: str) -> dict[str, Any]:
    content: dict[str, Any] = rest.get(f"/dead-letters/{quote(_full_name(name))}")
    return content


def _corrected(rest: Rest, names: list[str], file: Path | None, *, edit: bool) -> str | None:
    """Raises CliError for several letters, no change, or a file that is not text."""
    if file is None and not edit:
        return None
    if len(names) != 1:
        message = "a correction is for one letter, named on the command line"
        raise CliError(message, code="not_one_letter", status=Exit.USAGE)
    if file is not None:
        try:
            return read_bytes(file).decode()
        except UnicodeDecodeError as error:
            raise CliError(f"{file} is not UTF-8", code="not_text", status=Exit.USAGE) from error
    before = event_of(base64.b64decode(_content(rest, names[0])["body"])).decode("utf-8", "replace")
    after = edited(before)
    if after == before:
        raise CliError("the body was not changed, and nothing was sent", code="not_changed")
    return after


def event_of(body: bytes) -> bytes:
    """What there is to correct: the event alone, where it came wrapped in a structured CloudEvent."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if isinstance(content, dict) and "specversion" in content and "data" in content:
        return json.dumps(content["data"], indent=2).encode()
    return body


def _since(text: str, now: datetime) -> str:
    """As the gateway reads a time; empty without one. Raises CliError."""
    return read_time(text, now).astimezone(UTC).isoformat().replace("+00:00", "Z") if text else ""


def _with_age(dead_letter: dict[str, Any], now: datetime) -> dict[str, Any]:
    given_up_at = datetime.fromisoformat(dead_letter["given_up_at"])
    return {**dead_letter, "age_seconds": round((now - given_up_at).total_seconds(), 1)}


def readable(value: bytes, most: int | None) -> tuple[str, str]:
    """How a body is shown, and the body: JSON indented, other text as it is, bytes as a hex dump; cut at `most`."""
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


def _left_out(full: int, shown: int, unit: str) -> str:
    return f"\n... {full - shown} {unit} more; --whole shows them" if full > shown else ""


def _status(dead_letter: dict[str, Any]) -> str:
    return (
        f"failed again as {dead_letter['failed_again']}" if dead_letter["failed_again"] else str(dead_letter["status"])
    )


def _short(event: str) -> str:
    return event if len(event) <= 32 else f"{event[:24]}…"


def _show(session: Session, dead_letter: dict[str, Any]) -> None:
    for name in ("address", "status", "code", "reason", "tries", "by", "key", "event_id", "trace_id", "given_up_at"):
        session.out.text(f"{name:<14} {printable(str(dead_letter[name])) if dead_letter[name] != '' else '-'}")
    for name in ("redelivery_of", "redelivered_at", "redelivered_as", "failed_again", "truncated_from"):
        if dead_letter.get(name):
            session.out.text(f"{name:<14} {printable(str(dead_letter[name]))}")
    session.out.text("headers")
    for name, value in dead_letter["headers"].items():
        session.out.text(f"  {printable(name)}: {printable(value[:SHOWN_BYTES])}")
    session.out.text(f"body ({dead_letter['size_bytes']} bytes, {dead_letter['body_form']})")
    session.out.text(dead_letter["body"])


def _show_redelivery(session: Session, outcome: dict[str, Any]) -> None:
    for one in outcome["redeliveries"]:
        going = "would be sent" if outcome["dry_run"] else "sent"
        result = f"skipped, {one['skipped']}: {one['why']}" if one["skipped"] else f"{going} as {one['event_id']}"
        session.out.text(f"{one['address']}  {printable(result)}")
    if not outcome["redeliveries"]:
        session.out.text("no dead letters")
    elif not outcome["dry_run"]:
        session.out.text(f"records sent: {outcome['sent']}")


def _now() -> datetime:
    from services.kit.core.clock import SystemClock

    return SystemClock().now()
