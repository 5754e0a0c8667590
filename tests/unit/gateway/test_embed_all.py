"""Embedding more texts than one question holds, on a virtual clock."""

import asyncio
import random
from array import array
from collections.abc import Callable
from typing import Any

import pytest

from services.contracts.errors import BadField, ErrorBody, Kind, Refusal, Relayed
from services.contracts.events import Role
from services.gateway.domain.requests import Answer, Classify, moved
from services.gateway.domain.vectors import shortened
from services.gateway.errors import ReplicaLost, RoutesNotRead, TooManyDimensions
from services.gateway.handlers import embed_all, served
from services.gateway.ports import Policy, Question
from tests.unit.gateway.fakes import FakeReplicas, World, deployment, report, target

Behaviour = Callable[[Question], Answer]


def vector(text: str, version: int) -> "array[float]":
    return array("f", (float(text.partition(" ")[2] or 0), float(version)))


def embedded(question: Question) -> Answer:
    vectors = tuple(vector(text, question.version) for text in question.texts)
    return Answer(question.request, question.deployment, "news", question.version, (), len(vectors), vectors)


def world_of(*targets: Any, behaviour: Behaviour = embedded, **policy: Any) -> World:
    world = World(policy=Policy(**policy))
    world.routes.deployment_changed("default", deployment(*targets), {})
    world.routes.replica_reported(report("r", *(part.version for part in targets)), at=0)
    world.replicas.behaviour = lambda _, question: behaviour(question)
    return world


def command(texts: int, **changes: Any) -> Classify:
    return Classify(
        "default", "news", [f"text {place}" for place in range(texts)], "req-1", 30.0, whole=True, **changes
    )


@pytest.mark.parametrize("texts", [1, 64, 65, 200])
async def test_many_texts_are_asked_for_in_chunks_and_come_back_in_order(texts: int) -> None:
    world = world_of(target(1))
    told = await embed_all(command(texts), world.ports)
    assert [values[0] for values in told.embeddings] == list(range(texts))
    assert (told.tokens, told.version) == (texts, 1)
    asked = [question for _, question in world.replicas.asked]
    assert all(len(question.texts) <= 64 and question.whole and question.with_embeddings for question in asked)
    assert len({question.request for question in asked}) == len(asked) == -(-texts // 64)


async def test_no_more_chunks_are_under_way_than_may_be() -> None:
    world = world_of(target(1), chunks_at_once=2)
    under_way = most = 0

    class Slow(FakeReplicas):
        async def ask(self, replica: str, question: Question) -> Answer:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            for _ in range(3):
                await asyncio.sleep(0)
            under_way -= 1
            return embedded(question)

    world.replicas = Slow()
    await embed_all(command(400), world.ports)
    assert most == 2


@pytest.mark.parametrize("seed", range(20))
async def test_a_canary_that_dies_half_way_leaves_all_vectors_to_one_version(seed: int) -> None:
    chance = random.Random(seed)
    alive = chance.randrange(1, 8)
    asked_of_canary = 0

    def behave(question: Question) -> Answer:
        nonlocal asked_of_canary
        if question.version == 2:
            asked_of_canary += 1
            if asked_of_canary > alive:
                raise ReplicaLost(retry_after_seconds=1)
        return embedded(question)

    world = world_of(target(1, weight=0), target(2, Role.CANARY, 100), behaviour=behave)
    told = await embed_all(command(64 * 8), world.ports)
    assert {values[1] for values in told.embeddings} == {float(told.version)} == {1.0}
    assert [values[0] for values in told.embeddings] == list(range(64 * 8))


async def test_one_request_goes_to_one_version_whatever_the_weights() -> None:
    world = world_of(target(1, weight=50), target(2, Role.CANARY, 50))
    for number in range(20):
        before = len(world.replicas.asked)
        await embed_all(command(300, sticky_key=f"user-{number}"), world.ports)
        assert len({question.version for _, question in world.replicas.asked[before:]}) == 1


async def test_a_refusal_names_the_text_by_its_place_among_all_and_ends_the_rest() -> None:
    def behave(question: Question) -> Answer:
        if "text 130" in question.texts:
            field = f"texts[{question.texts.index('text 130')}]"
            raise Relayed(Kind.TOO_LARGE, ErrorBody(code="context_length_exceeded", message="m", field=field))
        return embedded(question)

    with pytest.raises(Refusal) as refused:
        await embed_all(command(300), world_of(target(1), behaviour=behave).ports)
    assert (refused.value.code, refused.value.body().field) == ("context_length_exceeded", "texts[130]")


def test_a_refusal_of_something_else_stays_as_it_is() -> None:
    for refusal in (BadField(name="a", problem="b", at="version"), ReplicaLost()):
        assert moved(refusal, by=64) is refusal


def test_a_shortened_embedding_has_unit_length_again() -> None:
    values = array("f", (0.6, 0.0, 0.8))
    assert list(shortened(values, 1)) == [1.0]
    assert shortened(values, 3) is values
    assert list(shortened(array("f", (0.0, 1.0)), 1)) == [0.0]
    with pytest.raises(TooManyDimensions) as refused:
        shortened(values, 4)
    assert refused.value.facts == {"most": 3, "asked": 4}


def test_what_is_served_is_told_by_tenant_and_only_once_it_is_known() -> None:
    world = world_of(target(1), target(3, Role.CANARY, 10), target(2, Role.DRAINING, 0))
    world.routes.deployment_changed("other", deployment(target(9)), {})
    (told,) = served("default", world.ports)
    assert (told.deployment, told.model, told.versions) == ("news", "news", (1, 3, 2))
    assert [part.versions for part in served("other", world.ports)] == [(9,)]
    assert served("nobody", world.ports) == ()
    world.routes_read = False
    with pytest.raises(RoutesNotRead):
        served("default", world.ports)
