"""Announcing data sets and sending feedback: events, receipts and keys."""

import pytest

from services.contracts.events import DatasetReady, FeedbackReceived
from services.gateway.domain.requests import Caller
from services.gateway.errors import OutboxFull, UnknownDeployment
from services.gateway.handlers import announce_dataset, send_feedback
from services.gateway.ports import Policy
from services.kit.core.idempotency import BadKey, KeyReused
from tests.unit.gateway.fakes import GatewayFleet, deployment, target

DATASET = DatasetReady(dataset="texts", uri="file:///data/texts.jsonl", model="news")
OTHER = DatasetReady(dataset="others", uri="file:///data/texts.jsonl", model="news")
FEEDBACK = FeedbackReceived(deployment="news", request="req-1", label="data")


async def test_without_a_key_each_call_is_an_event_of_its_own() -> None:
    fleet = GatewayFleet()
    first = await announce_dataset(DATASET, Caller("acme"), fleet.ports)
    second = await announce_dataset(DATASET, Caller("acme"), fleet.ports)
    assert first.event_id != second.event_id
    assert fleet.store.events == [("acme", DATASET), ("acme", DATASET)]


async def test_a_repeated_key_gives_the_first_answer_and_no_second_event() -> None:
    fleet = GatewayFleet()
    answers = [await announce_dataset(DATASET, Caller("default", "key"), fleet.ports) for _ in range(3)]
    assert len(set(answers)) == 1
    assert len(fleet.store.events) == 1


async def test_a_key_with_another_request_is_refused_and_changes_nothing() -> None:
    fleet = GatewayFleet()
    await announce_dataset(DATASET, Caller("default", "key"), fleet.ports)
    with pytest.raises(KeyReused):
        await announce_dataset(OTHER, Caller("default", "key"), fleet.ports)
    assert fleet.store.events == [("default", DATASET)]


async def test_tenants_do_not_share_keys() -> None:
    fleet = GatewayFleet()
    await announce_dataset(DATASET, Caller("default", "key"), fleet.ports)
    await announce_dataset(OTHER, Caller("acme", "key"), fleet.ports)
    assert len(fleet.store.events) == 2


async def test_feedback_asks_for_a_deployment_of_the_callers_tenant() -> None:
    fleet = GatewayFleet()
    fleet.routes.deployment_changed("default", deployment(target(1)), {})
    await send_feedback(FEEDBACK, Caller("default"), fleet.ports)
    assert fleet.store.events == [("default", FEEDBACK)]
    with pytest.raises(UnknownDeployment):
        await send_feedback(FEEDBACK, Caller("acme"), fleet.ports)


async def test_a_full_outbox_refuses_instead_of_growing_and_a_known_key_is_still_answered() -> None:
    fleet = GatewayFleet(policy=Policy(outbox_limit=1))
    first = await announce_dataset(DATASET, Caller("default", "key"), fleet.ports)
    with pytest.raises(OutboxFull) as refused:
        await announce_dataset(OTHER, Caller("default", "other"), fleet.ports)
    assert refused.value.body().retry_after_seconds == 10.0
    assert await announce_dataset(DATASET, Caller("default", "key"), fleet.ports) == first


@pytest.mark.parametrize("key", ["k" * 201, "a\x00b", "a\nb"])
async def test_keys_are_short_and_printable(key: str) -> None:
    with pytest.raises(BadKey):
        await announce_dataset(DATASET, Caller("default", key), GatewayFleet().ports)
