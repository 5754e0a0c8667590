"""Reading what a user hands over: a file, or standard input for `-`."""

import sys
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
