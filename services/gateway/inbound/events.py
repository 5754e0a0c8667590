"""The routing events, which the gateway reads from the beginning and without a group, since each replica of it needs
all; and requests, which the replicas share."""

from services.contracts.events import DeploymentChanged, InferenceRequested, ReplicaReported
from services.gateway.handlers import follow_deployment, follow_replica
from services.gateway.handlers.patience import Patient
from services.gateway.inbound.requested import answering
from services.gateway.inbound.sampling import Sampler
from services.gateway.ports import Ports
from services.kit.messaging.delivery import Subscription, on
from services.kit.messaging.ports import Sender


def subscriptions(ports: Ports) -> list[Subscription]:
    return [
        on(DeploymentChanged, lambda envelope: follow_deployment(envelope, ports)),
        on(ReplicaReported, lambda envelope: follow_replica(envelope, ports)),
    ]


def requests(ports: Ports, patient: Patient, sampler: Sampler, answers: Sender) -> Subscription:
    return on(InferenceRequested, answering(ports, patient, sampler, answers))
