"""The registry, wired."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from services.kit import service as service_parts
from services.kit.persistence.sql.store import SqlStore
from services.kit.service import Service
from services.registry import handlers
from services.registry.inbound import events, rpc
from services.registry.outbound.artifacts import CheckedArtifacts
from services.registry.outbound.store import RegistryTx
from services.registry.ports import Artifacts, Ports
from services.registry.settings import RegistrySettings

MIGRATIONS: Final = Path(__file__).parent / "outbound" / "migrations"


@dataclass(frozen=True, kw_only=True)
class Adapters(service_parts.Adapters):
    """And what the registry alone opens."""

    checker: Artifacts | None = None


NOTHING_REPLACED: Final = Adapters()


def build(settings: RegistrySettings, adapters: Adapters = NOTHING_REPLACED) -> Service[Ports]:
    """The whole service; nothing is open before it runs."""
    service: Service[Ports] = Service(settings, adapters)
    database = service.database(MIGRATIONS)

    def begin(session: AsyncSession) -> RegistryTx:
        return RegistryTx(session, clock=service.clock, ids=service.ids, source="millrace/registry")

    store = SqlStore(database, begin)
    service.ports = ports = Ports(
        store=store,
        artifacts=adapters.checker or CheckedArtifacts(service.artifacts),
        clock=service.clock,
        rules=settings.rules(),
        replica_timeout=timedelta(seconds=settings.replica_timeout_seconds),
        settle=timedelta(seconds=settings.settle_seconds),
    )
    service.part("what ought to be served", open=lambda: handlers.republish_all(ports))
    rpc.serve(service.grpc(), ports)
    service.subscribes(partial(events.subscribe, ports=ports))
    service.timers(store, events.timer_handlers(ports))
    service.http()
    return service
