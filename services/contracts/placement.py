"""Where a deployment is loaded: how many replicas, on which device, and how many must be ready.

Every replica and the registry come to the same answer from the same reports, so nobody has to be told: replicas are
ranked by rendezvous hashing (D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
Transactions on Networking 6 (1998) 1-14). A replica that joins or leaves moves only what it takes or gives up.
"""

import hashlib
from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from services.contracts.artifact import Device
from services.contracts.training import Fact


class Placement(Fact):
    """The replicas that load a deployment."""

    replicas: int = Field(default=0, ge=0, le=1000, description="how many load it; 0: every one that fits")
    device: Device | None = Field(default=None, description="only replicas that compute on it; unset: any")
    quorum: int = Field(
        default=0, ge=0, le=1000, description="how many must be ready before traffic moves; 0: more than half"
    )

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.replicas and self.quorum > self.replicas:
            raise ValueError("the quorum is larger than the number of replicas")
        return self

    def assigned(self, deployment: str, devices: Mapping[str, Device]) -> frozenset[str]:
        """The replicas that load the deployment, of those that live with the device of each.

        `deployment` is its qualified name (`[tenant/]name`), so that deployments spread over the replicas.
        """
        fitting = [replica for replica, device in devices.items() if self.device in (None, device)]
        fitting.sort(key=lambda replica: _rank(deployment, replica), reverse=True)
        return frozenset(fitting[: self.replicas] if self.replicas else fitting)

    def required_ready(self, assigned: int) -> int:
        """How many replicas must have a version ready before it may take traffic; at least one.

        Where a number of replicas is desired, more than half of that number; where every one is, of those assigned.
        """
        return self.quorum or (self.replicas or assigned) // 2 + 1


def _rank(deployment: str, replica: str) -> bytes:
    return hashlib.blake2b(f"{deployment}\x00{replica}".encode(), digest_size=16).digest()
