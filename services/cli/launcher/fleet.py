"""What the supervisor runs: the broker and the five services, their ports and their environment."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from services.cli.home import Home
from services.cli.launcher.ports import next_free
from services.cli.launcher.processes import QUIET_MATH
from services.contracts.addresses import LOOPBACK, PORTS

EMBEDDED_DEFAULTS: Final = {
    # What is stopped here is stopped altogether: a run goes on from its checkpoint at the next start.
    "MILLRACE_TRAINER_ON_SHUTDOWN": "cancel",
}
"""Unless the caller's own environment says otherwise."""

CLEAN_UPS: Final = {"trainer": "end-runs"}
"""What a service is asked, as its one argument, when it did not end by itself: to end the processes it left behind."""

BrokerKind = Literal["embedded", "kafka", "external"]


@dataclass(frozen=True)
class ServicePorts:
    """A service and the ports it gets when they are free."""

    name: str
    http_port: int
    grpc_port: int


SERVICES: Final = tuple(
    ServicePorts(name, PORTS[name].http, PORTS[name].grpc)
    for name in ("registry", "trainer", "monitor", "inference", "gateway")
)

STOP_ORDER: Final = (("gateway",), ("trainer", "inference", "monitor"), ("registry",))
"""The door closes first; the registry hears the last reports; the broker (not listed) ends last."""

UPSTREAMS: Final = {
    "gateway": ("registry", "trainer", "monitor"),
    "trainer": ("registry",),
}
"""Who calls whom over gRPC, as MILLRACE_<ROOM>_<UPSTREAM>_ADDRESS."""


def choose_ports() -> list[ServicePorts]:
    """Each room with ports that are free now: the preferred one or the next above it."""
    taken: set[int] = set()
    chosen: list[ServicePorts] = []
    for ports in SERVICES:
        http = next_free(ports.http_port, taken)
        taken.add(http)
        grpc = next_free(ports.grpc_port, taken)
        taken.add(grpc)
        chosen.append(ServicePorts(ports.name, http, grpc))
    return chosen


def broker_command(kind: BrokerKind, home: Home, bootstrap: str) -> list[str]:
    """The broker's process; for one that runs elsewhere, a process that makes the topics and ends."""
    if kind == "external":
        return [sys.executable, "-m", "services.cli.launcher.kafka", "--topics-of", bootstrap]
    ready = ["--ready-file", str(home.broker_file)]
    data = ["--data", str(home.data / "kafka")] if kind == "kafka" else []
    return [sys.executable, "-m", f"services.cli.launcher.{kind}", *ready, *data]


def service_command(ports: ServicePorts) -> list[str]:
    return [sys.executable, "-m", f"services.{ports.name}"]


def service_environment(
    ports: ServicePorts, services: list[ServicePorts], *, home: Home, bootstrap: str, outside: Mapping[str, str]
) -> dict[str, str]:
    """The supervisor's own environment, and on top of it what only the launcher knows."""
    mine = f"MILLRACE_{ports.name.upper()}"
    environment = {
        **QUIET_MATH,
        **EMBEDDED_DEFAULTS,
        **outside,
        "MILLRACE_HOME": str(home.root),
        "MILLRACE_HOST": LOOPBACK,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        f"{mine}_HTTP_PORT": str(ports.http_port),
        f"{mine}_GRPC_PORT": str(ports.grpc_port),
        "PYTHONUNBUFFERED": "1",
    }
    for other in services:
        if other.name in UPSTREAMS.get(ports.name, ()):
            environment[f"{mine}_{other.name.upper()}_ADDRESS"] = f"{LOOPBACK}:{other.grpc_port}"
    return environment


def endpoints(services: list[ServicePorts], bootstrap: str) -> dict[str, str]:
    """The doors for people and programs."""
    gateway = next(ports for ports in services if ports.name == "gateway")
    rest = f"http://{LOOPBACK}:{gateway.http_port}"
    return {
        "rest": rest,
        "openapi": f"{rest}/openapi.json",
        "grpc": f"{LOOPBACK}:{gateway.grpc_port}",
        "kafka": bootstrap,
    }
