"""Wires the monitor."""

from functools import partial

from services.contracts.rpc import monitor_pb2_grpc
from services.contracts.tasks import TASKS, Tasks
from services.kit.jobs.timers import TimerLoop
from services.kit.messaging.batch_consumer import BatchConsumer
from services.kit.service import Service
from services.monitor.handlers.upkeep import begin_upkeep
from services.monitor.inbound.events import batches, subscribe, timers
from services.monitor.inbound.rpc import SERVICE, MonitorRpc
from services.monitor.outbound.baselines import StoredBaselines, on_a_thread
from services.monitor.outbound.store import open_store
from services.monitor.ports import Ports
from services.monitor.settings import MonitorSettings


def build(settings: MonitorSettings, tasks: Tasks = TASKS) -> Service:
    """The whole service; nothing is open before it runs."""
    service = Service(settings)
    store = open_store(settings.sql_url(), clock=service.clock, ids=service.ids, source=f"millrace/{service.name}")
    ports = Ports(
        store=store,
        clock=service.clock,
        baselines=StoredBaselines(service.artifacts),
        offload=on_a_thread,
        policy=settings.policy(),
        tasks=tasks,
    )
    service.database(store.database)
    service.part("upkeep", open=partial(begin_upkeep, ports))
    service.runs("timers", TimerLoop(store, timers(ports), service.clock).run)
    service.subscribes(partial(subscribe, ports=ports))
    for event, take in batches(ports).items():
        consumer = BatchConsumer(
            event,
            take,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            service=service.name,
            delivery=service.delivery(),
            clock=service.clock,
        )
        service.runs(event.topic, consumer.run)
    service.grpc().add(monitor_pb2_grpc.add_MonitorServiceServicer_to_server, MonitorRpc(ports), SERVICE)
    service.http()
    return service
