"""What runs at intervals: objectives are checked, and what retention no longer keeps is dropped."""

from datetime import datetime, timedelta
from typing import Final

from services.contracts.events import SloBreached
from services.kit.messaging.envelope import StoredEventRef
from services.kit.persistence.unit_of_work import Timer
from services.monitor import telemetry as names
from services.monitor.domain.deployments import Watch
from services.monitor.domain.slo import Burn, Counts, Objective, burn_rate, burning
from services.monitor.ports import Ports, Tx

MAINTENANCE_TIMER: Final = "monitor.maintenance"


async def schedule_maintenance(ports: Ports) -> None:
    """Sets the timer that then renews itself; harmless when it is set already."""
    async with ports.store.transaction() as tx:
        await tx.schedule(_next(ports))


async def run_maintenance(timer: Timer, ports: Ports) -> None:
    """Checks the objectives of every deployment, then drops what is older, or more, than retention keeps."""
    now = ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.take_timer(timer):
            return
        for watch in await tx.watches():
            await _check_objectives(watch, now, tx, ports)
        await tx.drop_expired(now, ports.policy.retention)
        await tx.schedule(_next(ports))


async def _check_objectives(watch: Watch, now: datetime, tx: Tx, ports: Ports) -> None:
    burn = ports.policy.burn
    long = await tx.counts(watch.key, now - timedelta(seconds=burn.long_seconds))
    short = await tx.counts(watch.key, now - timedelta(seconds=burn.short_seconds))
    breaches = await tx.breaches(watch.key)
    for version, counts in sorted(long.items()):
        recent = short.get(version, Counts())
        for objective in ports.policy.objectives:
            state = burning(counts, recent, objective, burn)
            _observe(watch, version, objective, counts, recent)
            is_known = (version, objective.indicator) in breaches
            if state is Burn.BREACHED and not is_known:
                await _publish_breach(watch, version, objective, counts, tx, ports)
            elif state is Burn.RECOVERED and is_known:
                await tx.set_breached(watch.key, version, objective.indicator, breached=False)


def _next(ports: Ports) -> Timer:
    due = ports.clock.now() + timedelta(seconds=ports.policy.maintenance_seconds)
    return Timer(key="maintenance", kind=MAINTENANCE_TIMER, due=due)


def _observe(watch: Watch, version: int, objective: Objective, long: Counts, short: Counts) -> None:
    for window, counts in (("long", long), ("short", short)):
        names.BURN_RATE.set(
            burn_rate(counts, objective),
            tenant=watch.key.tenant,
            deployment=watch.key.deployment,
            version=version,
            indicator=objective.indicator.value,
            window=window,
        )


async def _publish_breach(
    watch: Watch, version: int, objective: Objective, counts: Counts, tx: Tx, ports: Ports
) -> None:
    key = watch.key
    event = SloBreached(
        deployment=key.deployment,
        version=version,
        indicator=objective.indicator.value,
        objective=objective.good_share,
        burn_rate=burn_rate(counts, objective),
        window_seconds=ports.policy.burn.long_seconds,
        requests=counts.requests,
    )
    cause = StoredEventRef(watch.context.id, watch.context.correlation_id, key.tenant)
    await tx.emit(event, cause=cause, tenant=key.tenant)
    await tx.set_breached(key, version, objective.indicator, breached=True)
    names.BREACHES.add(1, tenant=key.tenant, deployment=key.deployment, indicator=objective.indicator.value)
