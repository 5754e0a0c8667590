"""Labelled traffic: texts that clients asked about, and what people said was right."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from services.contracts.events import FeedbackReceived, InferenceLogged
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.feedback import item_key
from services.contracts.tasks.records import Source
from services.kit.messaging.envelope import Envelope
from services.trainer.ports import GivenLabel, Ports, SeenText

LONGEST_LABEL: Final = 200
"""A longer reference is an answer to another task than classification."""
OURS: Final = frozenset({Source.MIRROR, Source.PROBE})
"""Requests that no client sent."""


async def on_inference_logged(batch: Sequence[Envelope[InferenceLogged]], ports: Ports) -> None:
    """Keeps the texts that clients had classified; safe to repeat."""
    texts: defaultdict[tuple[str, str, str], list[SeenText]] = defaultdict(list)
    for envelope in batch:
        if envelope.event.task == CLASSIFICATION.name:
            texts[envelope.tenant, envelope.event.deployment, envelope.event.model] += [
                SeenText(item_key(record.request, number), item["text"], record.at)
                for record in envelope.event.records
                if record.outcome == "ok" and record.source not in OURS
                for number, item in enumerate(record.items)
                if item.get("text")
            ]
    async with ports.store.transaction() as tx:
        for (tenant, deployment, model), seen in texts.items():
            if seen:
                await tx.save_texts(tenant, deployment, model, seen, most=ports.examples_limit)


async def on_feedback_received(batch: Sequence[Envelope[FeedbackReceived]], ports: Ports) -> None:
    """Keeps the labels that people gave, of each item the one that was given last; one taken before changes nothing."""
    labels: defaultdict[tuple[str, str], list[GivenLabel]] = defaultdict(list)
    now = ports.clock.now()
    async with ports.store.transaction() as tx:
        for envelope in batch:
            event = envelope.event
            label = event.label if event.label is not None else event.reference
            if not await tx.mark_processed(envelope) or label is None or len(label) > LONGEST_LABEL:
                continue
            given = GivenLabel(item_key(event.request, event.item), label, min(event.given_at or envelope.time, now))
            labels[envelope.tenant, event.deployment].append(given)
        for (tenant, deployment), matches in labels.items():
            await tx.save_labels(tenant, deployment, matches, most=ports.examples_limit)
