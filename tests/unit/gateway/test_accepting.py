"""Announcing data sets and sending feedback: events, receipts and keys."""

import pytest

from services.contracts.events import DatasetReady, FeedbackReceived
from services.gateway.domain.requests import Caller
from services.gateway.errors import OutboxFull, UnknownDeployment
from services.gateway.handlers import announce_dataset, send_feedback
from services.gateway.ports import Policy
from services.kit.core.idempotency import BadKey, KeyReused
from tests.unit.gateway.fakes import World, deployment, target

DATASET = DatasetReady(dataset="texts", uri="file:///data/texts.jsonl", model="news")
OTHER = DatasetReady(dataset="others", uri="file:///data/texts.jsonl", model="news")
FEEDBACK = FeedbackReceived(deployment="news", request="req-1", label="data")


async def test_without_a_key_each_call_is_an_event_of_its_own() -> None:
    world = World()
    first = await announce_dataset(DATASET, Caller("acme"), world.ports)
    second = await announce_dataset(DATASET, Caller("acme"), world.ports)
    assert first.event_id != second.event_id
    assert world.store.events == [("acme", DATASET), ("acme", DATASET)]


async def test_a_repeated_key_gives_the_first_answer_and_no_second_event() -> None:
    world = World()
    answers = [await announce_dataset(DATASET, Caller("default", "key"), world.ports) for _ in range(3)]
    assert len(set(answers)) == 1
    assert len(world.store.events) == 1


async def test_a_key_with_another_request_is_refused_and_changes_nothing() -> None:
    world = World()
    await announce_dataset(DATASET, Caller("default", "key"), world.ports)
    with pytest.raises(KeyReused):
        await announce_dataset(OTHER, Caller("default", "key"), world.ports)
    assert world.store.events == [("default", DATASET)]


async def test_tenants_do_not_share_keys() -> None:
    world = World()
    await announce_dataset(DATASET, Caller("default", "key"), world.ports)
    await announce_dataset(OTHER, Caller("acme", "key"), world.ports)
    assert len(world.store.events) == 2


async def test_feedback_asks_for_a_deployment_of_the_callers_tenant() -> None:
    world = World()
    world.routes.deployment_changed("default", deployment(target(1)), {})
    await send_feedback(FEEDBACK, Caller("default"), world.ports)
    assert world.store.events == [("default", FEEDBACK)]
    with pytest.raises(UnknownDeployment):
        await send_feedback(FEEDBACK, Caller("acme"), world.ports)


async def test_a_full_outbox_refuses_instead_of_growing_and_a_known_key_is_still_answered() -> None:
    world = World(policy=Policy(outbox_limit=1))
    first = await announce_dataset(DATASET, Caller("default", "key"), world.ports)
    with pytest.raises(OutboxFull) as refused:
        await announce_dataset(OTHER, Caller("default", "other"), world.ports)
    assert refused.value.body().retry_after_seconds == 10.0
    assert await announce_dataset(DATASET, Caller("default", "key"), world.ports) == first


@pytest.mark.parametrize("key", ["k" * 201, "a\x00b", "a\nb"])
async def test_keys_are_short_and_printable(key: str) -> None:
    with pytest.raises(BadKey):
        await announce_dataset(DATASET, Caller("default", key), World().ports)
