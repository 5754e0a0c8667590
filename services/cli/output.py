"""What commands print: data on standard output, everything else on standard error.

With `--json` standard output is JSON alone: one document, or one object a line for what streams. Colours and bars
appear only on a terminal, and colours never with NO_COLOR (rich sees to both).
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from services.cli.errors import CliError

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH: Final = 160


class Output:
    """One command's two streams."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def data(self, document: Any, render: Callable[[Any], None]) -> None:
        """The command's answer: as JSON, or by `render` for people."""
        if self.as_json:
            print(_json(document, indent=2))
        else:
            render(document)

    def line(self, document: Any, text: str) -> None:
        """One of many answers, as they come."""
        print(_json(document) if self.as_json else text, flush=True)

    def text(self, text: str) -> None:
        """Plain text on standard output, for people only."""
        if not self.as_json:
            print(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing yet") -> None:
        """A table on standard output; a line that says so when there are no rows."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        rendered = [[_cell(value) for value in row] for row in rows]
        if not rendered:
            print(empty)
            return
        console = stdout()
        table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold")
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in rendered:
            table.add_row(*(Text(cell) for cell in row))  # as text: what others wrote is no markup
        console.print(table)

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        print(text, file=sys.stderr, flush=True)

    def next(self, *commands: str) -> None:
        """What to type next, on standard error."""
        for command in commands:
            self.say(f"next: {command}")

    def error(self, error: CliError) -> None:
        """On standard error: for programs too, since data is the only thing standard output carries."""
        if self.as_json:
            body = {"code": error.code, "message": error.message, "hint": error.hint or None}
            print(json.dumps({"error": body}), file=sys.stderr)
            return
        self.say(f"error: {error.message}")
        if error.hint:
            self.say(f"  try: {error.hint}")


def stdout() -> "Console":
    """Rich's console on standard output; wide where it is not a terminal, so that nothing is cut."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def _json(document: Any, indent: int | None = None) -> str:
    """Readable in any script; what no encoding can write, such as half a surrogate pair, as escapes."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, indent=indent)
    return text


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return printable(str(value))


def printable(text: str) -> str:
    """Control characters as escapes: what others wrote must not drive the terminal."""
    return "".join(one if one.isprintable() or one in "\n\t" else f"\\x{ord(one):02x}" for one in text)
