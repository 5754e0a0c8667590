"""A decision being made: each fact is applied as it is decided, so that the next one sees its effect."""

from datetime import datetime

from services.registry.domain.evolve import evolve
from services.registry.domain.facts import AliasMoved, AnyFact, Decided
from services.registry.domain.policy import Rules
from services.registry.domain.state import CHALLENGER, CHAMPION, PREVIOUS, Deployment, ModelState


class Decision:
    """Holds the facts decided so far and the state after them."""

    def __init__(self, state: ModelState, at: datetime, rules: Rules) -> None:
        self.state = state
        self.at = at
        self.rules = rules
        self.decided: list[Decided] = []

    def record(self, fact: AnyFact, actor: str, reason: str) -> None:
        decided = Decided(fact, actor, reason)
        self.state = evolve(self.state, decided, self.at)
        self.decided.append(decided)

    def deployment(self, name: str) -> Deployment:
        return self.state.deployment(name)

    def move_alias(self, alias: str, after: int | None, actor: str, reason: str) -> None:
        """Nothing is recorded when it stands there already."""
        before = self.state.aliases.get(alias)
        if before != after:
            self.record(AliasMoved(model=self.state.model, alias=alias, before=before, after=after), actor, reason)

    def settle_aliases(self, name: str, actor: str, reason: str) -> None:
        """The reserved aliases follow the deployment: who serves, who served before, who is on trial."""
        deployment = self.deployment(name)
        rollout = deployment.active_rollout
        self.move_alias(CHAMPION, deployment.version, actor, reason)
        self.move_alias(PREVIOUS, deployment.before[-1] if deployment.before else None, actor, reason)
        self.move_alias(CHALLENGER, rollout.version if rollout else None, actor, reason)
