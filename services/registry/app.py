"""The registry, wired."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from services.kit import service as service_parts
from services.kit.core.settings import BadSettings
from services.kit.persistence.sql.store import SqlStore
from services.kit.service import Service
from services.registry.domain import GatePolicy, RolloutPolicy, Rules
from services.registry.handlers import deployments
from services.registry.inbound import events, grpc
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
        rules=rules_of(settings),
        replica_timeout=timedelta(seconds=settings.replica_timeout_seconds),
        settle=timedelta(seconds=settings.settle_seconds),
    )
    service.part("what ought to be served", open=lambda: deployments.republish_all(ports))
    grpc.serve(service.grpc(), ports)
    service.subscribes(partial(events.subscribe, ports=ports))
    service.timers(store, events.timer_handlers(ports))
    service.http()
    return service


def rules_of(settings: RegistrySettings) -> Rules:
    """The gate's and the rollouts' rules. Raises BadSettings where two settings contradict each other."""
    gate = GatePolicy(
        minimum_test_rows=settings.gate_minimum_test_rows,
        margin=settings.gate_margin,
        floor_margin=settings.gate_floor_margin,
        alpha=settings.gate_alpha,
    )
    try:
        rollout = RolloutPolicy(
            weights=settings.canary_weights,
            bake_seconds=settings.bake_seconds,
            minimum_requests=settings.minimum_requests,
            step_timeout_seconds=settings.step_timeout_seconds,
            load_timeout_seconds=settings.load_timeout_seconds,
            mirror=settings.mirror,
            drain_seconds=settings.drain_seconds,
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        name = "STEP_TIMEOUT_SECONDS" if "step_timeout" in problem else "CANARY_WEIGHTS"
        raise BadSettings(key=f"MILLRACE_REGISTRY_{name}", problem=problem) from error
    return Rules(gate=gate, rollout=rollout)
