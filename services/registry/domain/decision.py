"""A decision being made: each fact is applied as it is decided, so that the next one sees its effect."""

from collections.abc import Mapping
from datetime import datetime
from typing import Generic, TypeVar

from services.registry.domain.evolve import evolve
from services.registry.domain.facts import AnyFact, Decided
from services.registry.domain.policy import Rules
from services.registry.domain.spec import VersionRef
from services.registry.domain.state import Deployment, ModelState, Version
from services.registry.errors import UnknownModel

S = TypeVar("S", ModelState, Deployment)


class Decision(Generic[S]):
    """Holds the facts decided so far and the state after them; `models` are those that a deployment may refer to."""

    def __init__(self, state: S, at: datetime, rules: Rules, models: Mapping[str, ModelState]) -> None:
        self.state: S = state
        self.at = at
        self.rules = rules
        self.decided: list[Decided] = []
        self._models = models

    def record(self, fact: AnyFact, actor: str, reason: str) -> None:
        decided = Decided(fact, actor, reason)
        self.state = evolve(self.state, decided, self.at)
        self.decided.append(decided)

    def has_model(self, name: str) -> bool:
        return name in self._models and bool(self._models[name].versions)

    def model(self, name: str) -> ModelState:
        """Raises UnknownModel where it has no version."""
        if not self.has_model(name):
            raise UnknownModel(model=name)
        return self._models[name]

    def version(self, ref: VersionRef) -> Version:
        """Raises UnknownModel, UnknownVersion."""
        return self.model(ref.model).version(ref.version)
