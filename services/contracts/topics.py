"""Names of topics, for those who need no event."""

from typing import Final

DLQ_SUFFIX: Final = ".dlq"
"""Each topic has a topic of dead letters beside it, by this ending of its name."""
