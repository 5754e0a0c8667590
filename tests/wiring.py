"""What stands in for a service's surroundings where a test wires it by its own `app.build`."""

from typing import Any

from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.messaging.in_memory import InMemoryBroker
from services.kit.persistence.sql.database import Database
from services.kit.service import Servers
from services.kit.transport.http import HttpServer
from services.kit.transport.rpc import RpcServer


class SilentRpc(RpcServer):
    """A server that nobody reaches: the test calls the use cases."""

    def __init__(self) -> None:
        self.port = 1

    def add(self, *_: Any) -> None:
        """Serves nothing."""

    def add_generic(self, *_: Any) -> None:
        """Serves nothing."""


class SilentHttp(HttpServer):
    """As silent."""

    def __init__(self) -> None:
        self.address = "127.0.0.1:1"


class SilentServers(Servers):
    def grpc(self, *_: Any, **__: Any) -> RpcServer:
        return SilentRpc()

    def http(self, *_: Any) -> HttpServer:
        return SilentHttp()


def beside(database: Database, clock: Clock, ids: Ids) -> dict[str, Any]:
    """Adapters of a service that has a real database, and nobody to talk to."""
    return {
        "database": database,
        "clock": clock,
        "ids": ids,
        "broker": InMemoryBroker(),
        "servers": SilentServers(),
    }
