"""Wires the monitor."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from services.contracts.rpc import monitor_pb2_grpc
from services.contracts.tasks import TASKS, Tasks
from services.kit import service as service_parts
from services.kit.core.settings import BadSettings
from services.kit.service import Service
from services.monitor.domain.drift import DriftPolicy
from services.monitor.domain.sequential import Limits
from services.monitor.domain.slo import BurnPolicy, Indicator, Objective
from services.monitor.domain.verdicts import JudgingPolicy
from services.monitor.handlers.maintenance import schedule_maintenance
from services.monitor.inbound.events import batches, subscribe, timers
from services.monitor.inbound.grpc import SERVICE, MonitorRpc
from services.monitor.outbound.baselines import StoredBaselines, on_a_thread
from services.monitor.outbound.store import MIGRATIONS, store_on
from services.monitor.ports import Baselines, Offload, Policy, Ports, Retention
from services.monitor.settings import MonitorSettings


@dataclass(frozen=True, kw_only=True)
class Adapters(service_parts.Adapters):
    """And what the monitor alone opens."""

    baselines: Baselines | None = None
    offload: Offload | None = None
    tasks: Tasks = TASKS


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
        policy=policy_of(settings),
        tasks=adapters.tasks,
    )
    service.part("maintenance", open=partial(schedule_maintenance, ports))
    service.timers(store, timers(ports))
    service.subscribes(partial(subscribe, ports=ports))
    service.consumes_batches(batches(ports))
    service.grpc().add(monitor_pb2_grpc.add_MonitorServiceServicer_to_server, MonitorRpc(ports), SERVICE)
    service.http()
    return service


def policy_of(settings: MonitorSettings) -> Policy:
    """How windows, canaries and objectives are judged. Raises BadSettings where two settings contradict each other."""
    return Policy(
        drift=_drift(settings),
        judging=JudgingPolicy(
            minimum_requests=settings.minimum_requests,
            require_labels=settings.require_labels,
            correctness=_limits("correctness", settings.verdict_alpha, 0.0, settings.correctness_margin),
            errors=_limits("errors", settings.verdict_alpha, settings.errors_tolerance, settings.errors_margin),
            latency=_limits("latency", settings.verdict_alpha, settings.latency_tolerance, settings.latency_margin),
        ),
        objectives=(
            Objective(Indicator.ERRORS, settings.good_errors_share),
            Objective(Indicator.LATENCY, settings.good_latency_share),
        ),
        burn=BurnPolicy(
            settings.fast_burn,
            settings.burn_long_seconds,
            settings.burn_short_seconds,
            settings.burn_minimum_requests,
        ),
        retention=Retention(
            answer_hours=settings.answer_hours,
            answers=settings.answers,
            minute_hours=settings.minute_hours,
            inbox_hours=settings.inbox_hours,
            windows=settings.windows,
            verdicts=settings.verdicts,
        ),
        slow_ms=settings.slow_ms,
        judge_seconds=settings.judge_seconds,
        repeat_seconds=settings.repeat_seconds,
        maintenance_seconds=settings.maintenance_seconds,
        health_seconds=settings.health_seconds,
        chunk_records=settings.chunk_records,
    )


def _drift(settings: MonitorSettings) -> DriftPolicy:
    try:
        return DriftPolicy(
            window_rows=settings.window_rows,
            permutations=settings.permutations,
            alpha=settings.drift_alpha,
            consecutive=settings.consecutive_windows,
            baseline_rows=settings.baseline_rows,
        )
    except ValueError as error:
        raise BadSettings(key="MILLRACE_MONITOR_PERMUTATIONS", problem=str(error)) from error


def _limits(indicator: str, alpha: float, tolerance: float, margin: float) -> Limits:
    try:
        return Limits(alpha, tolerance, margin)
    except ValueError as error:
        raise BadSettings(key=f"MILLRACE_MONITOR_{indicator.upper()}_MARGIN", problem=str(error)) from error
