"""The events that the gateway consumes: routing, which each replica of it reads from the beginning; and requests, which
the replicas share."""

from collections.abc import Awaitable, Callable
from typing import Any

from services.contracts.events import DeploymentChanged, Event, InferenceRequested, ReplicaReported
from services.gateway.handlers import follow_deployment, follow_replica
from services.gateway.handlers.retrying import RetryingClient
from services.gateway.inbound.requested import answering
from services.gateway.inbound.sampling import Sampler
from services.gateway.ports import Ports
from services.kit.messaging.envelope import Envelope
from services.kit.messaging.ports import Sender

Handler = Callable[[Envelope[Any]], Awaitable[None]]


def compacted_topics(ports: Ports) -> dict[type[Event], Handler]:
    """The handler of each."""

    async def on_deployment_changed(envelope: Envelope[DeploymentChanged]) -> None:
        await follow_deployment(envelope, ports)

    async def on_replica_reported(envelope: Envelope[ReplicaReported]) -> None:
        await follow_replica(envelope, ports)

    return {DeploymentChanged: on_deployment_changed, ReplicaReported: on_replica_reported}


def concurrent_topics(
    ports: Ports, client: RetryingClient, sampler: Sampler, answers: Sender
) -> dict[type[Event], Handler]:
    """The handler of each."""
    return {InferenceRequested: answering(ports, client, sampler, answers)}
