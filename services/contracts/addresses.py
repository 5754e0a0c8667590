"""Where each service listens unless its settings say otherwise, and so where the others look for it."""

from dataclasses import dataclass
from typing import Final

LOOPBACK: Final = "127.0.0.1"
BROKER_PORT: Final = 9092
"""Kafka's own default."""
BROKER: Final = f"{LOOPBACK}:{BROKER_PORT}"


@dataclass(frozen=True)
class Ports:
    """The two that a service listens on."""

    http: int
    grpc: int


PORTS: Final[dict[str, Ports]] = {
    "gateway": Ports(8080, 8081),
    "trainer": Ports(8110, 8111),
    "registry": Ports(8120, 8121),
    "inference": Ports(8130, 8131),
    "monitor": Ports(8140, 8141),
}


def grpc_address(service: str) -> str:
    """What a service on the same machine calls."""
    return f"{LOOPBACK}:{PORTS[service].grpc}"
