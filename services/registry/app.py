"""The registry, wired."""

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from services.kit.jobs.timers import TimerLoop
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.store import SqlStore
from services.kit.service import Service
from services.registry import handlers
from services.registry.inbound import events, rpc
from services.registry.outbound.artifacts import CheckedArtifacts
from services.registry.outbound.store import RegistryTx
from services.registry.ports import Ports
from services.registry.settings import RegistrySettings

MIGRATIONS: Final = Path(__file__).parent / "outbound" / "migrations"


def build(settings: RegistrySettings) -> Service:
    service = Service(settings)
    database = Database(settings.sql_url(), MIGRATIONS)

    def begin(session: AsyncSession) -> RegistryTx:
        return RegistryTx(session, clock=service.clock, ids=service.ids, source="millrace/registry")

    store = SqlStore(database, begin)
    ports = Ports(
        store=store,
        artifacts=CheckedArtifacts(service.artifacts),
        clock=service.clock,
        rules=settings.rules(),
        replica_timeout=timedelta(seconds=settings.replica_timeout_seconds),
        settle=timedelta(seconds=settings.settle_seconds),
    )
    service.database(database)
    service.part("what ought to be served", open=lambda: handlers.republish_all(ports))
    rpc.serve(service.grpc(), ports)
    service.subscribes(partial(events.subscribe, ports=ports))
    service.runs("timers", TimerLoop(store, events.timer_handlers(ports), service.clock).run)
    service.http()
    return service
