"""The events that inference consumes, each replica from the beginning: the desired state, and the other replicas."""

from collections.abc import Awaitable, Callable
from typing import Any

from services.contracts.events import DeploymentChanged, Event, ReplicaReported
from services.inference.handlers import deployments
from services.inference.ports import Ports
from services.kit.messaging.envelope import Envelope


def compacted_topics(ports: Ports) -> dict[type[Event], Callable[[Envelope[Any]], Awaitable[None]]]:
    """The handler of each."""

    async def on_deployment_changed(envelope: Envelope[DeploymentChanged]) -> None:
        await deployments.on_deployment_changed(envelope, ports)

    async def on_replica_reported(envelope: Envelope[ReplicaReported]) -> None:
        await deployments.on_replica_reported(envelope, ports)

    return {DeploymentChanged: on_deployment_changed, ReplicaReported: on_replica_reported}
