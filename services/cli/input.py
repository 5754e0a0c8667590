"""Reading what a user hands over: a file, standard input for `-`, or what an editor was left with."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.cli.errors import CliError, Exit

MOST_BYTES: Final = 64 * 1024 * 1024


def read_bytes(file: Path) -> bytes:
    """Raises CliError where there is no such file, and for one that is larger than any use of it."""
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        raise CliError(message, code="missing_file", status=Exit.USAGE) from error
    if len(content) > MOST_BYTES:
        raise CliError(f"{file} is larger than {MOST_BYTES >> 20} MiB", code="too_large", status=Exit.USAGE)
    return content


def edited(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text as VISUAL or EDITOR left it. Raises CliError where there is no editor, or it failed."""
    editor = environment.get("VISUAL") or environment.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "event.json"
        draft.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(draft)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            hint = "set EDITOR, or hand over a corrected --body FILE"
            raise CliError(f"the editor {editor} failed", hint=hint, code="no_editor") from error
        return draft.read_text(encoding="utf-8")
