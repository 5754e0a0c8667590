"""Deployments: what of theirs is watched and judged follows what the registry wants served."""

from services.contracts.events import DeploymentChanged
from services.kit.core import telemetry
from services.kit.messaging.envelope import Envelope
from services.monitor.domain.deployments import Place, Story, Watch, followed
from services.monitor.domain.rollouts import rollout_of
from services.monitor.handlers.verdicts import schedule_judgement
from services.monitor.ports import Ports, Tx


async def follow_deployment(envelope: Envelope[DeploymentChanged], ports: Ports) -> None:
    """Watches what serves now; when another version serves, its windows begin afresh."""
    event, place = envelope.event, Place(envelope.tenant, envelope.event.deployment)
    story = Story(envelope.id, envelope.story, telemetry.current_carrier() or dict(envelope.trace))
    async with ports.store.transaction() as tx:
        if not await tx.mark_processed(envelope):
            return
        await tx.alone(place)
        before = await tx.watch(place)
        watch = followed(before, place, event, story)
        if watch is None:
            return
        await tx.save_watch(watch)
        if before is not None and before.version != watch.version:
            await tx.drop_samples(place)
            await tx.drop_untested(place)
        await _follow_rollout(watch, envelope, story, tx, ports)


async def _follow_rollout(
    watch: Watch, envelope: Envelope[DeploymentChanged], story: Story, tx: Tx, ports: Ports
) -> None:
    present = await tx.rollout(watch.place)
    rollout = rollout_of(present, watch, envelope.event, at=envelope.time, story=story)
    if rollout is None:
        await tx.drop_rollout(watch.place)
    elif rollout is not present:
        # Answers may have been heard of before this change was.
        known = await tx.known_since(watch.place, rollout.contest.since)
        await schedule_judgement(rollout.caught_up(known, ports.tasks), tx, ports)
