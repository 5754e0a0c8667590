"""`millrace trace`: the work of all services for one story, as a waterfall."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from services.cli.errors import CliError, Exit
from services.cli.output import stdout
from services.cli.session import Json, Session, command
from services.cli.waterfall import draw, read_spans, summarise, waterfall


@command
def trace(
    trace_id: Annotated[
        str, typer.Argument(help="32 hex digits, or their beginning; without it the newest traces.")
    ] = "",
    limit: Annotated[int, typer.Option(help="Rows at most; 0 for all.")] = 0,
    every: Annotated[bool, typer.Option("--all", help="In the list, traces of a single span too.")] = False,
    as_json: Json = False,
) -> None:
    """Draw a trace from the spans kept in the data folder."""
    session = Session(as_json=as_json)
    if not trace_id:
        _list(session, limit or 20, least=1 if every else 2)
        return
    spans = read_spans(session.home.traces)
    matching = {span.trace_id for span in spans if span.trace_id.startswith(trace_id.lower())}
    if len(matching) != 1:
        problem = "no trace begins" if not matching else f"{len(matching)} traces begin"
        raise CliError(f"{problem} with {trace_id}", hint="millrace trace", code="unknown_trace", status=Exit.NOT_FOUND)
    chosen = [span for span in spans if span.trace_id in matching]
    lines = draw(waterfall(chosen, limit), stdout().width)
    session.out.data([asdict(span) for span in chosen], lambda _: print("\n".join(lines)))


def _list(session: Session, limit: int, least: int) -> None:
    matches = [one for one in summarise(read_spans(session.home.traces)) if one.spans >= least][:limit]
    session.out.data([asdict(one) for one in matches], lambda _: session.out.table(
        ["trace", "began", "seconds", "spans", "services", "first"],
        [
            (one.trace_id, datetime.fromtimestamp(one.start_ns / 1e9, UTC).strftime("%H:%M:%S"), one.seconds, one.spans,
             len(one.services), one.name)
            for one in matches
        ],
        empty=f"no traces in {session.home.traces}",
    ))  # fmt: skip
    if matches:
        widest = max(matches, key=lambda one: (len(one.services), one.spans))
        session.out.next(f"millrace trace {widest.trace_id}")
