"""What inference hears: the registry's wishes, read whole by every replica, from the newest of each deployment on."""

from collections.abc import Awaitable, Callable
from typing import Any

from services.contracts.events import DeploymentChanged, Event
from services.inference.handlers import adopt_deployment
from services.inference.ports import Ports
from services.kit.envelope import Envelope


def followed(ports: Ports) -> dict[type[Event], Callable[[Envelope[Any]], Awaitable[None]]]:
    """Compacted topics and what happens on each."""

    async def deployment_changed(envelope: Envelope[DeploymentChanged]) -> None:
        await adopt_deployment(envelope, ports)

    return {DeploymentChanged: deployment_changed}
