"""The routing events. The gateway reads them from the beginning, without a group: each replica of it needs all."""

from services.contracts.events import DeploymentChanged, ReplicaReported
from services.gateway.handlers import follow_deployment, follow_replica
from services.gateway.ports import Ports
from services.kit.bus.delivery import Subscription, on


def subscriptions(ports: Ports) -> list[Subscription]:
    return [
        on(DeploymentChanged, lambda envelope: follow_deployment(envelope, ports)),
        on(ReplicaReported, lambda envelope: follow_replica(envelope, ports)),
    ]
