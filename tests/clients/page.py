"""The table of `docs/compatibility.md`, made of what the clients' scripts reported.

`make compatibility` writes it into the page; without that the suite fails when the page says otherwise.
"""

import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from tests.clients.tools import ROOT
from tests.clients.tried import Call, recorded_calls

PAGE: Final = ROOT / "docs/compatibility.md"
BEGIN: Final = "<!-- made by `make test` from here -->\n"
END: Final = "<!-- to here -->\n"
OF_THE_SYSTEM: Final = frozenset({"kcat"})
"""Their versions are those of the machine that made the page; every other is pinned."""


def table(calls: Sequence[Call]) -> str:
    """Markdown: a row a call."""
    rows = [f"| {call.client} | {call.version} | {call.call} | {call.result} |" for call in calls]
    return "\n".join(["| client | version | call | result |", "| --- | --- | --- | --- |", *rows]) + "\n"


def summary(calls: Sequence[Call]) -> list[str]:
    """For the terminal: a line a client."""
    lines = [("client", "version", "calls", "result")]
    for (client, version), group in groupby(calls, key=lambda call: (call.client, call.version)):
        results = [call.result for call in group]
        works = sum(result == "works" for result in results)
        refused = f", {len(results) - works} refused as promised" if works < len(results) else ""
        lines.append((client, version, str(len(results)), f"{works} work{refused}"))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def page_rows() -> list[str]:
    """The rows that stand in the page."""
    inside = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    return inside.splitlines()[2:]


def missing_rows(calls: Sequence[Call]) -> list[str]:
    """What the page ought to say of these calls, and does not."""
    rows = {_comparable(row) for row in page_rows()}
    return [row for row in table(calls).splitlines()[2:] if _comparable(row) not in rows]


def _comparable(row: str) -> str:
    client, version, rest = row.removeprefix("| ").split(" | ", 2)
    return " | ".join((client, "" if client in OF_THE_SYSTEM else version, rest))


def write() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    PAGE.write_text(before + begin + table(recorded_calls()) + end + after, encoding="utf-8")


if __name__ == "__main__":
    if "--summary" in sys.argv:
        print("\n".join(summary(recorded_calls())))
    else:
        write()
