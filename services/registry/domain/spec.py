"""What a deployment is to be, as people specify it, and how a version is named across models."""

from enum import StrEnum
from typing import Self

from pydantic import Field, ValidationError

from services.contracts.artifact import Device
from services.contracts.names import ModelName, VersionNumber
from services.contracts.placement import Placement
from services.contracts.training import Fact
from services.registry.domain.policy import PolicyChanges, RolloutPolicy
from services.registry.errors import InvalidSpec


class VersionRef(Fact):
    """One version of one model: a deployment may serve those of several, one after the other."""

    model: ModelName
    version: VersionNumber

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


class Approval(StrEnum):
    NONE = "none"
    MANUAL = "manual"
    """A rollout that the registry starts by itself waits until a person approves it."""


class SpecChanges(Fact):
    """The fields of a specification that are to change; unset ones stay."""

    model: ModelName | None = None
    replicas: int | None = None
    device: Device | None = None
    any_device: bool = Field(default=False, description="takes the device away")
    quorum: int | None = None
    policy: PolicyChanges | None = None
    approval: Approval | None = None
    automatic: bool | None = None
    compare: bool | None = None


class DeploymentSpec(Fact):
    """The model that is served, where, how a version of it takes over, and who has to agree."""

    model: ModelName
    placement: Placement = Placement()
    policy: RolloutPolicy | None = Field(default=None, description="of its rollouts; unset: the registry's")
    approval: Approval = Approval.NONE
    automatic: bool = Field(default=True, description="a version that passed its gate is rolled out by itself")
    compare: bool = Field(
        default=True, description="a version must have been compared with the one that serves, before it is rolled out"
    )

    def changed(self, changes: SpecChanges, default: RolloutPolicy) -> Self:
        """This specification with what is set in `changes`; `default` is the registry's policy.

        Raises InvalidSpec, InvalidPolicy.
        """
        given = changes.model_dump(exclude_none=True, include={"model", "approval", "automatic", "compare"})
        if changes.policy is not None:
            given["policy"] = (self.policy or default).changed(changes.policy).model_dump()
        fields = changes.model_dump(exclude_none=True, include={"replicas", "device", "quorum"})
        if changes.any_device:
            fields["device"] = None
        given["placement"] = {**self.placement.model_dump(), **fields}
        try:
            return type(self).model_validate({**self.model_dump(), **given})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            last = str(first["loc"][-1]) if first["loc"] else ""
            name = last if last in SpecChanges.model_fields else "quorum"  # which has to fit the number of replicas
            raise InvalidSpec(problem=f"{name}: {first['msg'].removeprefix('Value error, ')}", field=name) from None
