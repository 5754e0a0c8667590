"""Where a data set's address leads: to a file under one of the allowed roots, or nowhere."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.trainer.errors import MissingFile, OutsideRoots, UnsupportedAddress


def locate(uri: str, roots: Sequence[Path]) -> Path:
    """The file, with every link resolved. Raises OutsideRoots, MissingFile, UnsupportedAddress.

    What lies outside the roots is refused before anybody looks whether it exists.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.query or parts.fragment:
        raise UnsupportedAddress(scheme=parts.scheme[:20] or "a bare path")
    path = unquote(parts.path, errors="strict")
    if parts.netloc not in ("", "localhost") or "\0" in path or not path.startswith("/"):
        raise OutsideRoots
    try:
        resolved = Path(path).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise OutsideRoots from error
    if not any(resolved.is_relative_to(root) for root in roots):
        raise OutsideRoots
    if not resolved.exists():
        raise MissingFile
    return resolved
