"""Labelled traffic: texts that clients asked about, and what people said was right."""

from collections import defaultdict
from collections.abc import Sequence

from services.contracts.events import FeedbackReceived, InferenceLogged, InferenceRecord
from services.kit.messaging.envelope import Envelope
from services.trainer.ports import Ports


async def keep_texts(batch: Sequence[Envelope[InferenceLogged]], ports: Ports) -> None:
    """Keeps the texts that clients asked about; safe to repeat."""
    records: defaultdict[tuple[str, str, str], list[InferenceRecord]] = defaultdict(list)
    for envelope in batch:
        place = (envelope.tenant, envelope.event.deployment, envelope.event.model)
        records[place].extend(
            record
            for record in envelope.event.records
            if record.text and record.outcome == "ok" and not record.mirrored
        )
    async with ports.store.transaction() as tx:
        for (tenant, deployment, model), found in records.items():
            if found:
                await tx.keep_texts(tenant, deployment, model, found, most=ports.kept_examples)


async def keep_labels(batch: Sequence[Envelope[FeedbackReceived]], ports: Ports) -> None:
    """Keeps what people said was right, the latest for each request; a label that was taken before changes nothing."""
    labels: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    async with ports.store.transaction() as tx:
        for envelope in batch:
            if await tx.mark_processed(envelope):  # repeated alone, and late, it would undo a correction
                place = (envelope.tenant, envelope.event.deployment)
                labels[place].append((envelope.event.request, envelope.event.label))
        for (tenant, deployment), found in labels.items():
            await tx.keep_labels(tenant, deployment, found, ports.clock.now(), most=ports.kept_examples)
