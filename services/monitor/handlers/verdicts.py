"""Canaries: judged when more is known of them, at most once in a while, and told when the verdict is news."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from services.contracts.events import RolloutJudged, Verdict
from services.kit.core import telemetry
from services.kit.messaging.envelope import StoredEventRef
from services.kit.persistence.unit_of_work import Timer
from services.monitor import telemetry as names
from services.monitor.domain.deployments import Place
from services.monitor.domain.rollouts import Rollout, RolloutVerdict, Told, worth_telling
from services.monitor.domain.verdicts import Judgement, judge
from services.monitor.handlers.lookup import require_watch
from services.monitor.ports import Ports, Tx

JUDGE_TIMER: Final = "monitor.judge"


async def schedule_judgement(rollout: Rollout, tx: Tx, ports: Ports) -> None:
    """Saves the rollout and sees to it that it is judged soon."""
    if not rollout.judging:
        due = ports.clock.now() + timedelta(seconds=ports.policy.judge_seconds)
        await tx.schedule(_judge_timer(rollout, due))
    await tx.save_rollout(replace(rollout, judging=True))


def _judge_timer(rollout: Rollout, due: datetime) -> Timer:
    place = rollout.place
    return Timer(
        key=f"judge:{place.tenant}:{place.deployment}",
        kind=JUDGE_TIMER,
        due=due,
        payload={"deployment": place.deployment},
        tenant=place.tenant,
        cause=StoredEventRef(id=rollout.story.id, story=rollout.story.story, tenant=place.tenant),
        trace=rollout.story.trace,
    )


async def judge_canary(timer: Timer, ports: Ports) -> None:
    """Weighs what is known of the rollout under way."""
    place, now = Place(timer.tenant, str(timer.payload["deployment"])), ports.clock.now()
    async with ports.store.transaction() as tx:
        if not await tx.take_timer(timer):
            return
        await tx.alone(place)
        rollout = await tx.rollout(place)
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
        if worth_telling(rollout, judgement, now, ports.policy.repeat_seconds):
            rollout = await _tell(rollout, judgement, now, tx)
        elif _is_growing_promotion(rollout, judgement):
            due = now + timedelta(seconds=ports.policy.repeat_seconds)
            await tx.schedule(_judge_timer(rollout, due))
            rollout = replace(rollout, judging=True)
        await tx.save_rollout(rollout)


def _is_growing_promotion(rollout: Rollout, judgement: Judgement) -> bool:
    """There is more to tell, only not yet."""
    told = rollout.told
    return judgement.verdict is Verdict.PROMOTE and told is not None and rollout.requests > told.requests


async def _tell(rollout: Rollout, judgement: Judgement, now: datetime, tx: Tx) -> Rollout:
    place, version = rollout.place, rollout.contest.candidate
    event = RolloutJudged(
        deployment=place.deployment,
        rollout=rollout.id,
        version=version,
        step=rollout.step,
        verdict=judgement.verdict,
        requests=rollout.requests,
        evidence=list(judgement.evidence),
        reason=judgement.reason,
    )
    attributes = {"millrace.rollout": rollout.id, "millrace.verdict": judgement.verdict.value}
    with telemetry.span(names.TELL_VERDICT, attributes=attributes):
        cause = StoredEventRef(id=rollout.story.id, story=rollout.story.story, tenant=place.tenant)
        await tx.emit(event, cause=cause, tenant=place.tenant)
    await tx.add_verdict(
        RolloutVerdict(
            place=place,
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
    names.VERDICTS.add(1, tenant=place.tenant, deployment=place.deployment, verdict=judgement.verdict.value)
    told = Told(rollout.step, judgement.verdict, judgement.reason, rollout.requests, now)
    return replace(rollout, told=told)


async def list_verdicts(
    place: Place,
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
        await require_watch(place, tx)
        return await tx.verdicts(place, limit, before=before, version=version, verdict=verdict, rollout=rollout)
