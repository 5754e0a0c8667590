"""The events that inference consumes: the desired state, which every replica reads from the beginning."""

from collections.abc import Awaitable, Callable
from typing import Any

from services.contracts.events import DeploymentChanged, Event
from services.inference.handlers import adopt_deployment
from services.inference.ports import Ports
from services.kit.messaging.envelope import Envelope


def compacted_topics(ports: Ports) -> dict[type[Event], Callable[[Envelope[Any]], Awaitable[None]]]:
    """The handler of each."""

    async def on_deployment_changed(envelope: Envelope[DeploymentChanged]) -> None:
        await adopt_deployment(envelope, ports)

    return {DeploymentChanged: on_deployment_changed}
