"""What is done at intervals: objectives are checked, and what is no longer needed is dropped."""

from datetime import timedelta
from typing import Final

from services.contracts.events import SloBreached
from services.kit.messaging.envelope import StoredEventRef
from services.kit.persistence.unit_of_work import Timer
from services.monitor import telemetry as names
from services.monitor.domain.deployments import Watch
from services.monitor.domain.slo import Burn, Counts, Objective, burn_rate, burning
from services.monitor.ports import Ports, Tx

UPKEEP_TIMER: Final = "monitor.upkeep"


async def begin_upkeep(ports: Ports) -> None:
    """Sets the timer that then renews itself; harmless when it is set already."""
    async with ports.store.transaction() as tx:
        await tx.schedule(_next(ports))


async def keep_up(timer: Timer, ports: Ports) -> None:
    """Checks every deployment's objectives, then forgets what retention lets go."""
    now, burn = ports.clock.now(), ports.policy.burn
    async with ports.store.transaction() as tx:
        if not await tx.take_timer(timer):
            return
        for watch in await tx.watches():
            long = await tx.counts(watch.place, now - timedelta(seconds=burn.long_seconds))
            short = await tx.counts(watch.place, now - timedelta(seconds=burn.short_seconds))
            told = await tx.breached(watch.place)
            for version, counts in sorted(long.items()):
                for objective in ports.policy.objectives:
                    state = burning(counts, short.get(version, Counts()), objective, burn)
                    _observe(watch, version, objective, counts, short.get(version, Counts()))
                    was_told = (version, objective.indicator) in told
                    if state is Burn.BREACHED and not was_told:
                        await _tell(watch, version, objective, counts, tx, ports)
                    elif state is Burn.RECOVERED and was_told:
                        await tx.set_breached(watch.place, version, objective.indicator, breached=False)
        await tx.forget(now, ports.policy.retention)
        await tx.schedule(_next(ports))


def _next(ports: Ports) -> Timer:
    due = ports.clock.now() + timedelta(seconds=ports.policy.upkeep_seconds)
    return Timer(key="upkeep", kind=UPKEEP_TIMER, due=due)


def _observe(watch: Watch, version: int, objective: Objective, long: Counts, short: Counts) -> None:
    for window, counts in (("long", long), ("short", short)):
        names.BURN_RATE.set(
            burn_rate(counts, objective),
            tenant=watch.place.tenant,
            deployment=watch.place.deployment,
            version=version,
            indicator=objective.indicator.value,
            window=window,
        )


async def _tell(watch: Watch, version: int, objective: Objective, counts: Counts, tx: Tx, ports: Ports) -> None:
    place = watch.place
    event = SloBreached(
        deployment=place.deployment,
        version=version,
        indicator=objective.indicator.value,
        objective=objective.good_share,
        burn_rate=burn_rate(counts, objective),
        window_seconds=ports.policy.burn.long_seconds,
        requests=counts.requests,
    )
    cause = StoredEventRef(id=watch.story.id, story=watch.story.story, tenant=place.tenant)
    await tx.emit(event, cause=cause, tenant=place.tenant)
    await tx.set_breached(place, version, objective.indicator, breached=True)
    names.BREACHES.add(1, tenant=place.tenant, deployment=place.deployment, indicator=objective.indicator.value)
