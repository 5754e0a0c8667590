"""Verdicts on canaries: made when more is known, at most once in a while, and published when they say something new."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from services.contracts.events import RolloutJudged, Verdict
from services.kit.core import telemetry
from services.kit.messaging.envelope import StoredEventRef
from services.kit.persistence.unit_of_work import Timer
from services.monitor import telemetry as names
from services.monitor.domain.deployments import DeploymentKey
from services.monitor.domain.rollouts import LastVerdict, Rollout, RolloutVerdict, should_publish
from services.monitor.domain.verdicts import Judgement, judge
from services.monitor.handlers.lookup import require_watch
from services.monitor.ports import Ports, Tx

JUDGE_TIMER: Final = "monitor.judge"


async def schedule_judgement(rollout: Rollout, tx: Tx, ports: Ports) -> None:
    """Saves the rollout, with a timer for its next judgement."""
    if not rollout.judging:
        due = ports.clock.now() + timedelta(seconds=ports.policy.judge_seconds)
        await tx.schedule(_judge_timer(rollout, due))
    await tx.save_rollout(replace(rollout, judging=True))


def _judge_timer(rollout: Rollout, due: datetime) -> Timer:
    key = rollout.key
    return Timer(
        key=f"judge:{key.tenant}:{key.deployment}",
        kind=JUDGE_TIMER,
        due=due,
        payload={"deployment": key.deployment},
        tenant=key.tenant,
        cause=StoredEventRef(rollout.context.id, rollout.context.correlation_id, key.tenant),
        trace=rollout.context.trace,
    )


async def judge_canary(timer: Timer, ports: Ports) -> None:
    """Weighs the evidence on the rollout under way."""
    key, now = DeploymentKey(timer.tenant, str(timer.payload["deployment"])), ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.take_timer(timer):
            return
        await tx.lock_deployment(key)
        rollout = await tx.rollout(key)
        if rollout is None:
            return
        rollout = replace(rollout, judging=False)
        judgement = judge(
            rollout.tally,
            requests=rollout.requests,
            policy=ports.policy.judging,
            mirrors=rollout.mirrors,
            variants=rollout.variants,
        )
        if should_publish(rollout, judgement, now, ports.policy.repeat_seconds):
            rollout = await _publish(rollout, judgement, now, tx)
        elif _is_growing_promotion(rollout, judgement):
            due = now + timedelta(seconds=ports.policy.repeat_seconds)
            await tx.schedule(_judge_timer(rollout, due))
            rollout = replace(rollout, judging=True)
        await tx.save_rollout(rollout)


def _is_growing_promotion(rollout: Rollout, judgement: Judgement) -> bool:
    """The verdict will be published again with more requests, only not yet."""
    last = rollout.last_verdict
    return judgement.verdict is Verdict.PROMOTE and last is not None and rollout.requests > last.requests


async def _publish(rollout: Rollout, judgement: Judgement, now: datetime, tx: Tx) -> Rollout:
    key, version = rollout.key, rollout.comparison.candidate
    event = RolloutJudged(
        deployment=key.deployment,
        rollout=rollout.id,
        version=version,
        step=rollout.step,
        verdict=judgement.verdict,
        requests=rollout.requests,
        evidence=list(judgement.evidence),
        reason=judgement.reason,
    )
    attributes = {"millrace.rollout": rollout.id, "millrace.verdict": judgement.verdict.value}
    with telemetry.span(names.PUBLISH_VERDICT, attributes=attributes):
        cause = StoredEventRef(rollout.context.id, rollout.context.correlation_id, key.tenant)
        await tx.emit(event, cause=cause, tenant=key.tenant)
    await tx.add_verdict(
        RolloutVerdict(
            key=key,
            rollout=rollout.id,
            version=version,
            step=rollout.step,
            verdict=judgement.verdict,
            reason=judgement.reason,
            requests=rollout.requests,
            evidence=judgement.evidence,
            at=now,
        )
    )
    names.VERDICTS.add(1, tenant=key.tenant, deployment=key.deployment, verdict=judgement.verdict.value)
    last = LastVerdict(rollout.step, judgement.verdict, judgement.reason, rollout.requests, now)
    return replace(rollout, last_verdict=last)


async def list_verdicts(
    key: DeploymentKey,
    limit: int,
    ports: Ports,
    *,
    before: int = 0,
    version: int = 0,
    verdict: Verdict | None = None,
    rollout: str = "",
) -> list[tuple[int, RolloutVerdict]]:
    """With their numbers, the newest first. Raises UnknownDeployment."""
    async with ports.store.reading() as tx:
        await require_watch(key, tx)
        return await tx.verdicts(key, limit, before=before, version=version, verdict=verdict, rollout=rollout)
