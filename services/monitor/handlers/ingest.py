"""Inference records and feedback, as they come in batches."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from services.contracts.events import FeedbackReceived, InferenceLogged
from services.contracts.tasks.feedback import item_key, requests_of
from services.kit.messaging.envelope import Envelope
from services.monitor import telemetry as names
from services.monitor.domain.deployments import Place, Watch
from services.monitor.domain.ingest import Intake
from services.monitor.domain.observations import Known, TimedFeedback
from services.monitor.domain.rollouts import Rollout
from services.monitor.handlers.verdicts import schedule_judgement
from services.monitor.handlers.windows import fill_windows
from services.monitor.ports import Ports, Tx


async def take_records(envelopes: Sequence[Envelope[InferenceLogged]], ports: Ports) -> None:
    """Takes batches of answered requests; what was taken before changes nothing."""
    for chunk in _chunks(envelopes, ports.policy.chunk_records):
        async with ports.store.transaction() as tx:
            by_place: dict[Place, list[Envelope[InferenceLogged]]] = defaultdict(list)
            for envelope in chunk:
                if await tx.mark_processed(envelope):
                    by_place[Place(envelope.tenant, envelope.event.deployment)].append(envelope)
            for place in sorted(by_place, key=lambda place: (place.tenant, place.deployment)):
                await _take_group(place, by_place[place], tx, ports)


async def _take_group(place: Place, group: list[Envelope[InferenceLogged]], tx: Tx, ports: Ports) -> None:
    await tx.alone(place)
    records = [(record, envelope.event.task) for envelope in group for record in envelope.event.records]
    watch, rollout = await tx.watch(place), await tx.rollout(place)
    known = await tx.known(place, {record.request: len(record.items) for record, _ in records})
    intake = _intake(known, watch, rollout, ports)
    for record, task in records:
        intake.add(record, task)
    counts = Counter((record.outcome, record.source.value) for record, _ in records)
    for (outcome, source), count in counts.items():
        names.RECORDS.add(count, tenant=place.tenant, outcome=outcome, source=source)
    names.RECORDS.add(intake.repeated, tenant=place.tenant, outcome="repeated", source="")
    names.SAMPLES_LEFT_OUT.add(intake.unreadable, tenant=place.tenant, reason="unreadable")
    await tx.add_answers(place, intake.answers)
    await _keep_news(place, intake, rollout, tx, ports)
    if watch is not None and intake.arrivals:
        await fill_windows(watch, intake.arrivals, group[-1].id, tx, ports)


async def take_feedback(envelopes: Sequence[Envelope[FeedbackReceived]], ports: Ports) -> None:
    """Joins what was said to the answers of its requests, known or still to come; what was taken changes nothing."""
    async with ports.store.transaction() as tx:
        groups: dict[Place, list[Envelope[FeedbackReceived]]] = defaultdict(list)
        for envelope in envelopes:
            if await tx.mark_processed(envelope):
                groups[Place(envelope.tenant, envelope.event.deployment)].append(envelope)
        for deployment in sorted(groups, key=lambda place: (place.tenant, place.deployment)):
            await _take_judgements(deployment, groups[deployment], tx, ports)


async def _take_judgements(place: Place, group: list[Envelope[FeedbackReceived]], tx: Tx, ports: Ports) -> None:
    await tx.alone(place)
    rollout, now = await tx.rollout(place), ports.clock.now()
    keys = [item_key(envelope.event.request, envelope.event.item) for envelope in group]
    may_mean = {request: item + 1 for key in keys for request, item in requests_of(key)}
    intake = _intake(await tx.known(place, may_mean), None, rollout, ports)
    for key, envelope in zip(keys, group, strict=True):
        judged = TimedFeedback(envelope.event.judgement, min(envelope.event.given_at or envelope.time, now))
        meant = requests_of(key)
        answered = [(request, item) for request, item in meant if intake.known.get(request, Known()).answers]
        if intake.judge(*(answered or meant)[0], judged):
            await tx.save_feedback(place, key, judged)
            names.FEEDBACK.add(1, tenant=place.tenant, state="joined" if answered else "early")
    await _keep_news(place, intake, rollout, tx, ports)


def _chunks(envelopes: Sequence[Envelope[InferenceLogged]], records: int) -> Iterator[list[Envelope[InferenceLogged]]]:
    """Runs of envelopes with about `records` records each, so that no transaction grows without bound."""
    chunk: list[Envelope[InferenceLogged]] = []
    size = 0
    for envelope in envelopes:
        chunk.append(envelope)
        size += len(envelope.event.records)
        if size >= records:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _intake(known: dict[str, Known], watch: Watch | None, rollout: Rollout | None, ports: Ports) -> Intake:
    return Intake(
        known=known,
        contest=rollout.contest if rollout is not None else None,
        watch=watch,
        slow_ms=ports.policy.slow_ms,
        now=ports.clock.now(),
        tasks=ports.tasks,
    )


async def _keep_news(place: Place, intake: Intake, rollout: Rollout | None, tx: Tx, ports: Ports) -> None:
    await tx.count(place, intake.counts)
    for alike in intake.likenesses:
        names.LIKENESS.record(alike, tenant=place.tenant, deployment=place.deployment)
    for metric, value in intake.qualities:
        names.QUALITY.record(value, tenant=place.tenant, deployment=place.deployment, metric=metric)
    if rollout is not None:
        changed = rollout.with_news(intake.tally, [answer for _, answer in intake.answers])
        if changed != rollout:
            await schedule_judgement(changed, tx, ports)
