"""Inference records and feedback, as they come in batches."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from services.contracts.events import FeedbackReceived, InferenceLogged
from services.contracts.tasks.feedback import item_key, requests_of
from services.kit.messaging.envelope import Envelope
from services.monitor import telemetry as names
from services.monitor.domain.deployments import DeploymentKey, Watch
from services.monitor.domain.ingest import ObservationBatch
from services.monitor.domain.observations import Observation, TimedFeedback
from services.monitor.domain.rollouts import Rollout
from services.monitor.handlers.verdicts import schedule_judgement
from services.monitor.handlers.windows import fill_windows
from services.monitor.ports import Ports, Tx


async def on_inference_logged(envelopes: Sequence[Envelope[InferenceLogged]], ports: Ports) -> None:
    """Counts answered requests once, whatever is delivered again."""
    for chunk in _chunks(envelopes, ports.policy.chunk_records):
        async with ports.store.transaction() as tx:
            by_deployment: dict[DeploymentKey, list[Envelope[InferenceLogged]]] = defaultdict(list)
            for envelope in chunk:
                if await tx.mark_processed(envelope):
                    by_deployment[DeploymentKey(envelope.tenant, envelope.event.deployment)].append(envelope)
            for key in sorted(by_deployment):
                await _ingest_records(key, by_deployment[key], tx, ports)


async def _ingest_records(key: DeploymentKey, envelopes: list[Envelope[InferenceLogged]], tx: Tx, ports: Ports) -> None:
    await tx.lock_deployment(key)
    watch, rollout = await tx.watch(key), await tx.rollout(key)
    envelopes = _of_model(watch.model, envelopes) if watch is not None else envelopes
    records = [(record, envelope.event.task) for envelope in envelopes for record in envelope.event.records]
    observations = await tx.observations(key, {record.request: len(record.items) for record, _ in records})
    batch = _new_batch(observations, watch, rollout, ports)
    for record, task in records:
        batch.add_record(record, task)
    counts = Counter((record.outcome, record.source.value) for record, _ in records)
    for (outcome, source), count in counts.items():
        names.RECORDS.add(count, tenant=key.tenant, outcome=outcome, source=source)
    names.RECORDS.add(batch.repeated, tenant=key.tenant, outcome="repeated", source="")
    names.SAMPLES_LEFT_OUT.add(batch.unreadable, tenant=key.tenant, reason="unreadable")
    await tx.add_answers(key, batch.answers)
    await _save_batch(key, batch, rollout, tx, ports)
    if watch is not None and batch.arrivals:
        await fill_windows(watch, batch.arrivals, envelopes[-1].id, tx, ports)


def _of_model(model: str, envelopes: list[Envelope[InferenceLogged]]) -> list[Envelope[InferenceLogged]]:
    """Without what a model answered that the deployment moves from, or to: its versions have the same numbers."""
    for envelope in envelopes:
        if envelope.event.model != model:
            count = len(envelope.event.records)
            names.RECORDS.add(count, tenant=envelope.tenant, outcome="other_model", source="")
    return [envelope for envelope in envelopes if envelope.event.model == model]


async def on_feedback_received(envelopes: Sequence[Envelope[FeedbackReceived]], ports: Ports) -> None:
    """Joins feedback to the answers of its requests, known or still to come, once however often it is delivered."""
    async with ports.store.transaction() as tx:
        by_deployment: dict[DeploymentKey, list[Envelope[FeedbackReceived]]] = defaultdict(list)
        for envelope in envelopes:
            if await tx.mark_processed(envelope):
                by_deployment[DeploymentKey(envelope.tenant, envelope.event.deployment)].append(envelope)
        for key in sorted(by_deployment):
            await _ingest_feedback(key, by_deployment[key], tx, ports)


async def _ingest_feedback(
    key: DeploymentKey, envelopes: list[Envelope[FeedbackReceived]], tx: Tx, ports: Ports
) -> None:
    await tx.lock_deployment(key)
    rollout, now = await tx.rollout(key), ports.clock.now()
    item_names = [item_key(envelope.event.request, envelope.event.item) for envelope in envelopes]
    candidates = {request: item + 1 for name in item_names for request, item in requests_of(name)}
    batch = _new_batch(await tx.observations(key, candidates), None, rollout, ports)
    for name, envelope in zip(item_names, envelopes, strict=True):
        feedback = TimedFeedback(envelope.event.judgement, min(envelope.event.given_at or envelope.time, now))
        items = requests_of(name)
        answered = [(request, item) for request, item in items if batch.has_answer(request)]
        if batch.add_feedback(*(answered or items)[0], feedback):
            await tx.save_feedback(key, name, feedback)
            names.FEEDBACK.add(1, tenant=key.tenant, state="joined" if answered else "early")
    await _save_batch(key, batch, rollout, tx, ports)


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


def _new_batch(
    observations: dict[str, Observation], watch: Watch | None, rollout: Rollout | None, ports: Ports
) -> ObservationBatch:
    return ObservationBatch(
        observations=observations,
        comparison=rollout.comparison if rollout is not None else None,
        watch=watch,
        slow_ms=ports.policy.slow_ms,
        now=ports.clock.now(),
        tasks=ports.tasks,
    )


async def _save_batch(
    key: DeploymentKey, batch: ObservationBatch, rollout: Rollout | None, tx: Tx, ports: Ports
) -> None:
    await tx.count(key, batch.counts)
    for likeness in batch.likenesses:
        names.LIKENESS.record(likeness, tenant=key.tenant, deployment=key.deployment)
    for metric, value in batch.qualities:
        names.QUALITY.record(value, tenant=key.tenant, deployment=key.deployment, metric=metric)
    if rollout is not None:
        changed = rollout.with_observations(batch.tally, [answer for _, answer in batch.answers])
        if changed != rollout:
            await schedule_judgement(changed, tx, ports)
