"""Labels of items, and which one counts."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.contracts.events import FeedbackReceived
from services.trainer.handlers import traffic
from tests.integration.trainer.service import TrainerFixture, opened


@pytest.fixture
async def service(database_url: str, tmp_path: Path) -> AsyncIterator[TrainerFixture]:
    async with opened(database_url, tmp_path) as trainer:
        yield trainer


async def test_each_item_of_a_request_has_a_text_and_a_label_of_its_own(service: TrainerFixture) -> None:
    await service.traffic(labelled=0, unlabelled=1, items=[{"text": "first"}, {"text": "second"}, {"text": "third"}])
    for name, item, label in (("req-0", 0, "x"), ("req-0:1", 0, "y"), ("req-0", 2, "z")):
        event = FeedbackReceived(deployment="topics", request=name, item=item, label=label)
        await traffic.on_feedback_received([service.envelope(event)], service.ports)
    async with service.store.reading() as tx:
        examples = await tx.labelled("default", "topics", service.clock.now(), service.clock.now(), 100)
    assert {example.text: example.label for example in examples} == {"first": "x", "second": "y", "third": "z"}


async def test_the_label_that_was_given_last_counts_whenever_it_arrives(service: TrainerFixture) -> None:
    await service.traffic(labelled=0, unlabelled=1)
    now = service.clock.now()
    for label, minutes in (("x", 5), ("y", 2), ("z", 9)):
        given_at = now - timedelta(minutes=minutes)
        event = FeedbackReceived(deployment="topics", request="req-0", label=label, given_at=given_at)
        await traffic.on_feedback_received([service.envelope(event)], service.ports)
    async with service.store.reading() as tx:
        examples = await tx.labelled("default", "topics", now, now, 100)
    assert [example.label for example in examples] == ["y"]
