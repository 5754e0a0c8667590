"""Data sets, labelled traffic, and what a drift asks for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from services.contracts.events import DatasetReady, DriftDetected
from services.contracts.names import NAME_PATTERN
from services.contracts.training import Recipe
from services.trainer.domain.runs import Run
from services.trainer.domain.spec import DataContent
from services.trainer.errors import BadContentHash, BadModelName, BadRecipe

_SOME_OF_IT: Final = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Dataset:
    """A data set as it was last announced."""

    tenant: str
    announced: DatasetReady
    announced_at: datetime
    latest_run: str
    content_hash: str | None = None
    """As announced, else as a run found it."""

    def lies_where(self, announced: DatasetReady) -> bool:
        """Whether a run on that announcement reads this data set's file, whose content nobody has said."""
        return self.announced.content_hash is None and self.announced.uri == announced.uri


@dataclass(frozen=True)
class DatasetVersion:
    """One content that a data set has had, and the announcement by which it can be had again."""

    tenant: str
    content_hash: str
    announced: DatasetReady
    first_at: datetime
    announced_at: datetime
    latest_run: str
    size_bytes: int | None = None
    rows: int | None = None


def announced_version(
    known: DatasetVersion | None, tenant: str, event: DatasetReady, at: datetime, run: str
) -> DatasetVersion:
    """The version after its content was announced, perhaps again."""
    if known is None:
        return DatasetVersion(tenant, str(event.content_hash), event, at, at, run)
    return replace(known, announced=event, announced_at=at, latest_run=run)


def read_version(
    known: DatasetVersion | None, announced: DatasetReady, run: Run, content: DataContent
) -> DatasetVersion:
    """The version after a run has read its content; a run that was late does not hide a later one."""
    if known is None:
        at = run.created_at
        known = DatasetVersion(run.tenant, content.sha256, announced, at, at, run.id)
    latest = max(known.latest_run, run.id)
    return replace(known, size_bytes=content.size_bytes, rows=content.rows or known.rows, latest_run=latest)


@dataclass(frozen=True)
class StartRun:
    """Somebody asks for a run: on the data set as it was last announced, or on an earlier version of it."""

    tenant: str
    dataset: str
    actor: str
    reason: str
    content_hash: str = ""
    model: str = ""
    recipe: Mapping[str, object] = field(default_factory=dict)
    """What differs from the announcement's."""
    deploy: bool = True

    def over(self, announced: DatasetReady) -> DatasetReady:
        """The announcement with what was asked for instead. Raises BadRecipe or BadModelName."""
        if self.model and not re.fullmatch(NAME_PATTERN, self.model):
            raise BadModelName
        recipe, model = self._recipe(announced.recipe), self.model or announced.model
        return announced.model_copy(update={"deploy": self.deploy, "recipe": recipe, "model": model})

    def _recipe(self, announced: Recipe) -> Recipe:
        for name in self.recipe:
            if name not in Recipe.model_fields:
                raise BadRecipe(problem="there is no such field", field=f"recipe_json.{name}"[:200])
        try:
            return Recipe.model_validate(announced.model_dump() | dict(self.recipe))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise BadRecipe(problem=first["msg"], field=f"recipe_json.{first['loc'][0]}") from error


def check_content_hash(text: str) -> None:
    """Raises BadContentHash unless it is a SHA-256 or the beginning of one."""
    if not _SOME_OF_IT.fullmatch(text):
        raise BadContentHash


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
    wait_seconds: float
    """How long labels are waited for before the drift is left unanswered."""


def shifted_since(drift: DriftDetected) -> datetime:
    """When the first of the suspect windows opened: its texts are of the new kind too.

    The event tells the last of them; the earlier ones are taken to have lasted as long.
    """
    length = drift.window.closed - drift.window.opened
    return drift.window.opened - length * (drift.consecutive - 1)
