"""Wires the monitor."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from services.contracts.rpc import monitor_pb2_grpc
from services.kit import service as service_parts
from services.kit.service import Service
from services.monitor.handlers.upkeep import begin_upkeep
from services.monitor.inbound.events import batches, subscribe, timers
from services.monitor.inbound.rpc import SERVICE, MonitorRpc
from services.monitor.outbound.baselines import StoredBaselines, on_a_thread
from services.monitor.outbound.store import MIGRATIONS, store_on
from services.monitor.ports import Baselines, Offload, Ports
from services.monitor.settings import MonitorSettings


@dataclass(frozen=True, kw_only=True)
class Adapters(service_parts.Adapters):
    """And what the monitor alone opens."""

    baselines: Baselines | None = None
    offload: Offload | None = None


NOTHING_REPLACED: Final = Adapters()


def build(settings: MonitorSettings, adapters: Adapters = NOTHING_REPLACED) -> Service[Ports]:
    """The whole service; nothing is open before it runs."""
    service: Service[Ports] = Service(settings, adapters)
    database = service.database(MIGRATIONS)
    store = store_on(database, clock=service.clock, ids=service.ids, source=f"millrace/{service.name}")
    service.ports = ports = Ports(
        store=store,
        clock=service.clock,
        baselines=adapters.baselines or StoredBaselines(service.artifacts),
        offload=adapters.offload or on_a_thread,
        policy=settings.policy(),
    )
    service.part("upkeep", open=partial(begin_upkeep, ports))
    service.timers(store, timers(ports))
    service.subscribes(partial(subscribe, ports=ports))
    service.consumes_batches(batches(ports))
    service.grpc().add(monitor_pb2_grpc.add_MonitorServiceServicer_to_server, MonitorRpc(ports), SERVICE)
    service.http()
    return service
