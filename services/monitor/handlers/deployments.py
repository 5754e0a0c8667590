"""Deployments: what of them is watched and judged follows what the registry serves."""

from services.contracts.events import DeploymentChanged
from services.kit.core import telemetry
from services.kit.messaging.envelope import Envelope
from services.monitor.domain.deployments import DeploymentKey, EventContext, Watch, apply_change
from services.monitor.domain.rollouts import rollout_after
from services.monitor.handlers.verdicts import schedule_judgement
from services.monitor.ports import Ports, Tx


async def on_deployment_changed(envelope: Envelope[DeploymentChanged], ports: Ports) -> None:
    """Watches what serves now; when another version serves, its windows begin afresh.

    When a deployment has moved to another model, so does everything else: its versions have the same numbers.
    """
    event, key = envelope.event, DeploymentKey(envelope.tenant, envelope.event.deployment)
    context = EventContext(envelope.id, envelope.correlation_id, telemetry.current_carrier() or dict(envelope.trace))
    async with ports.store.transaction() as tx:
        if not await tx.mark_processed(envelope):
            return
        await tx.lock_deployment(key)
        before = await tx.watch(key)
        watch = apply_change(before, key, event, context)
        if watch is None:
            return
        await tx.save_watch(watch)
        if before is not None and (before.model, before.version) != (watch.model, watch.version):
            await tx.drop_samples(key)
            await tx.drop_untested(key)
        if before is not None and before.model != watch.model:
            await tx.drop_answers(key)
        await _update_rollout(watch, envelope, context, tx, ports)


async def _update_rollout(
    watch: Watch, envelope: Envelope[DeploymentChanged], context: EventContext, tx: Tx, ports: Ports
) -> None:
    current = await tx.rollout(watch.key)
    rollout = rollout_after(current, watch, envelope.event, at=envelope.time, context=context)
    if rollout is None:
        await tx.drop_rollout(watch.key)
    elif rollout is not current:
        # Answers may have arrived before this change did.
        observations = await tx.observations_since(watch.key, rollout.comparison.since)
        await schedule_judgement(rollout.caught_up(observations, ports.tasks), tx, ports)
