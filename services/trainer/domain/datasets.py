"""Data sets, labelled traffic, and what a drift asks for."""

from dataclasses import dataclass
from datetime import datetime

from services.contracts.events import DatasetReady, DriftDetected


@dataclass(frozen=True)
class Dataset:
    """A data set as it was last announced."""

    tenant: str
    announced: DatasetReady
    announced_at: datetime
    latest_run: str


@dataclass(frozen=True)
class Example:
    """A text that was served, and the label that somebody gave it."""

    text: str
    label: str


@dataclass(frozen=True)
class RetrainingPolicy:
    """When labelled traffic is enough to answer a drift with a run."""

    minimum_examples: int
    most_examples: int
    """The latest this many are learned from."""
    poll_seconds: float
    patience_seconds: float
    """How long labels are waited for before the drift is left unanswered."""


def shifted_since(drift: DriftDetected) -> datetime:
    """When the first of the suspect windows opened: its texts are of the new kind too.

    The event tells the last of them; the earlier ones are taken to have lasted as long.
    """
    length = drift.window.closed - drift.window.opened
    return drift.window.opened - length * (drift.consecutive - 1)
