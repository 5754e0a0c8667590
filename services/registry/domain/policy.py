"""The rules that decisions are made by: how strict the gate is and how careful a rollout is."""

from typing import Self

from pydantic import Field, ValidationError, model_validator

from services.contracts.training import Fact
from services.registry.errors import InvalidPolicy


class GatePolicy(Fact):
    """When a version is good enough to be rolled out. Scores are shares of 1, not percent."""

    minimum_test_rows: int = Field(default=100, ge=1)
    floor_margin: float = Field(default=0.03, ge=0, le=1, description="macro-F1 it may lie below the TF-IDF baseline")
    margin: float = Field(default=0.03, ge=0, lt=1, description="accuracy it may lose to the champion on any slice")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="one-sided level of the test for 'worse'")


class PolicyChanges(Fact):
    """The fields of a rollout policy that are to change; unset ones stay."""

    weights: tuple[int, ...] | None = None
    bake_seconds: float | None = None
    minimum_requests: int | None = None
    step_timeout_seconds: float | None = None
    load_timeout_seconds: float | None = None
    mirror: float | None = None
    drain_seconds: float | None = None


class RolloutPolicy(Fact):
    """How a version takes over. Without weights it takes all traffic as soon as it is ready."""

    weights: tuple[int, ...] = Field(
        default=(10, 50), max_length=20, description="percent for the canary, step by step"
    )
    bake_seconds: float = Field(default=60.0, ge=0, description="the least time of a step")
    minimum_requests: int = Field(default=50, ge=0, description="canary requests a promote verdict must rest on")
    step_timeout_seconds: float = Field(
        default=3600.0, gt=0, description="after which thin evidence pauses the rollout"
    )
    load_timeout_seconds: float = Field(
        default=1800.0,
        gt=0,
        description="after which a version that is not ready on enough replicas is given up, where another serves",
    )
    mirror: float = Field(
        default=0.5, ge=0, le=1, description="share of requests the other version answers too, unseen"
    )
    drain_seconds: float = Field(default=30.0, ge=0, description="how long a replaced version stays loaded")

    @model_validator(mode="after")
    def _is_sensible(self) -> Self:
        if any(not 1 <= weight <= 99 for weight in self.weights):
            raise ValueError("each weight is a percentage from 1 to 99")
        if any(later <= earlier for earlier, later in zip(self.weights, self.weights[1:], strict=False)):
            raise ValueError("weights must grow from step to step")
        if self.step_timeout_seconds <= self.bake_seconds:
            raise ValueError("step_timeout_seconds must be longer than bake_seconds")
        return self

    def changed(self, changes: PolicyChanges) -> "RolloutPolicy":
        """This policy with what is set in `changes`. Raises InvalidPolicy."""
        given = changes.model_dump(exclude_none=True)
        try:
            return RolloutPolicy.model_validate({**self.model_dump(), **given})
        except ValidationError as refused:
            first = refused.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            problem = first["msg"].removeprefix("Value error, ")
            raise InvalidPolicy(problem=f"{where}: {problem}" if where else problem) from None

    def at_once(self) -> "RolloutPolicy":
        """The same care without canary steps: for a first version, and for the way back."""
        return self.model_copy(update={"weights": ()})


class Rules(Fact):
    """What `decide` goes by; a rollout may bring a policy of its own."""

    gate: GatePolicy = GatePolicy()
    rollout: RolloutPolicy = RolloutPolicy()
