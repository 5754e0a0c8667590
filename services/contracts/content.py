"""What fixes a file, wherever it lies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """The SHA-256 of a file's bytes, and how many they are."""

    sha256: str
    size_bytes: int
