"""Embedding more texts than one question holds, on a virtual clock."""

import asyncio
import random
from array import array
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from services.contracts.errors import BadField, ErrorBody, Kind, MillraceError, Relayed
from services.contracts.events import Role
from services.contracts.tasks import EMBEDDING
from services.contracts.tasks.embedding import EmbeddingRequest, EmbeddingResult
from services.contracts.tasks.records import Source
from services.contracts.tasks.stream import PredictEvent, Result
from services.contracts.tasks.task import AnswerInfo
from services.gateway.domain.requests import Predict, moved
from services.gateway.domain.vectors import shortened
from services.gateway.errors import ReplicaLost, RoutesNotRead, TooManyDimensions
from services.gateway.handlers import embed_all, served
from services.gateway.ports import Policy, ReplicaRequest
from tests.unit.gateway.fakes import FakeReplicas, GatewayFleet, command, deployment, report, target, texts_of

Behaviour = Callable[[ReplicaRequest], Result]


def vector(text: str, version: int) -> "array[float]":
    return array("f", (float(text.partition(" ")[2] or 0), float(version)))


def embedded(request: ReplicaRequest) -> Result:
    texts = texts_of(request)
    result = EmbeddingResult([vector(text, request.version) for text in texts])
    info = AnswerInfo(request.request_id, request.deployment, "news", request.version, len(texts))
    return Result(EMBEDDING.encode_result(result, info), "news", request.version, len(texts))


def fleet_of(*targets: Any, behaviour: Behaviour = embedded, **policy: Any) -> GatewayFleet:
    fleet = GatewayFleet(policy=Policy(**policy))
    fleet.routes.deployment_changed("default", deployment(*targets), {})
    fleet.routes.replica_reported(report("r", *(part.version for part in targets)), at=0)
    fleet.replicas.behaviour = lambda _, request: behaviour(request)
    return fleet


def many(texts: int, **changes: Any) -> Predict:
    request = EmbeddingRequest([f"text {index}" for index in range(texts)], truncate=False)
    return command(task=EMBEDDING, request=request, **changes)


@pytest.mark.parametrize("texts", [1, 64, 65, 200])
async def test_many_texts_are_sent_in_chunks_and_come_back_in_order(texts: int) -> None:
    fleet = fleet_of(target(1))
    embedded_all = await embed_all(many(texts), fleet.ports)
    assert [values[0] for values in embedded_all.embeddings] == list(range(texts))
    assert (embedded_all.tokens, embedded_all.version) == (texts, 1)
    requests = [request for _, request in fleet.replicas.requests]
    assert all(request.task == "embedding" for request in requests)
    assert all(len(EMBEDDING.decode(request.payload).texts) <= 64 for request in requests)
    assert not any(EMBEDDING.decode(request.payload).truncate for request in requests)
    assert len({request.request_id for request in requests}) == len(requests) == -(-texts // 64)


async def test_no_more_chunks_are_under_way_than_may_be() -> None:
    fleet = fleet_of(target(1), chunks_at_once=2)
    under_way = most = 0

    class Slow(FakeReplicas):
        async def predict(self, replica: str, request: ReplicaRequest) -> AsyncGenerator[PredictEvent, None]:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            for _ in range(3):
                await asyncio.sleep(0)
            under_way -= 1
            yield embedded(request)

    fleet.replicas = Slow()
    await embed_all(many(400), fleet.ports)
    assert most == 2


@pytest.mark.parametrize("seed", range(20))
async def test_a_canary_that_dies_half_way_leaves_all_vectors_to_one_version(seed: int) -> None:
    chance = random.Random(seed)
    alive = chance.randrange(1, 8)
    canary_requests = 0

    def behave(request: ReplicaRequest) -> Result:
        nonlocal canary_requests
        if request.version == 2:
            canary_requests += 1
            if canary_requests > alive:
                raise ReplicaLost(retry_after_seconds=1)
        return embedded(request)

    fleet = fleet_of(target(1, weight=0), target(2, Role.CANARY, 100), behaviour=behave)
    embedded_all = await embed_all(many(64 * 8), fleet.ports)
    assert {values[1] for values in embedded_all.embeddings} == {float(embedded_all.version)} == {1.0}
    assert [values[0] for values in embedded_all.embeddings] == list(range(64 * 8))


async def test_one_request_goes_to_one_version_whatever_the_weights() -> None:
    fleet = fleet_of(target(1, weight=50), target(2, Role.CANARY, 50))
    for number in range(20):
        before = len(fleet.replicas.requests)
        await embed_all(many(300, sticky_key=f"user-{number}"), fleet.ports)
        assert len({request.version for _, request in fleet.replicas.requests[before:]}) == 1


async def test_an_error_names_the_text_by_its_index_among_all_and_ends_the_rest() -> None:
    def behave(request: ReplicaRequest) -> Result:
        if "text 130" in (texts := list(texts_of(request))):
            field = f"texts[{texts.index('text 130')}]"
            raise Relayed(Kind.TOO_LARGE, ErrorBody(code="context_length_exceeded", message="m", field=field))
        return embedded(request)

    with pytest.raises(MillraceError) as refused:
        await embed_all(many(300), fleet_of(target(1), behaviour=behave).ports)
    assert (refused.value.code, refused.value.body().field) == ("context_length_exceeded", "texts[130]")


def test_a_refusal_of_something_else_stays_as_it_is() -> None:
    for error in (BadField(name="a", problem="b", field="version"), ReplicaLost()):
        assert moved(error, by=64) is error


def test_a_shortened_embedding_has_unit_length_again() -> None:
    values = array("f", (0.6, 0.0, 0.8))
    assert list(shortened(values, 1)) == [1.0]
    assert shortened(values, 3) is values
    assert list(shortened(array("f", (0.0, 1.0)), 1)) == [0.0]
    with pytest.raises(TooManyDimensions) as refused:
        shortened(values, 4)
    assert refused.value.details == {"most": 3, "asked": 4}


def test_what_is_served_is_listed_by_tenant_and_only_once_it_is_known() -> None:
    fleet = fleet_of(target(1), target(3, Role.CANARY, 10), target(2, Role.DRAINING, 0))
    fleet.routes.deployment_changed("other", deployment(target(9)), {})
    (embedded_all,) = served("default", fleet.ports)
    assert (embedded_all.deployment, embedded_all.model, embedded_all.versions) == ("news", "news", (1, 3, 2))
    assert [part.versions for part in served("other", fleet.ports)] == [(9,)]
    assert served("nobody", fleet.ports) == ()
    fleet.routes_read = False
    with pytest.raises(RoutesNotRead):
        served("default", fleet.ports)


async def test_a_request_of_many_chunks_is_one_observation_under_its_own_id() -> None:
    fleet = fleet_of(target(1))
    await embed_all(many(200, request_id="req-7"), fleet.ports)
    sources = {request.request_id: request.source for _, request in fleet.replicas.requests}
    assert sources == {
        "req-7": Source.LIVE,
        "req-7.1": Source.BATCH,
        "req-7.2": Source.BATCH,
        "req-7.3": Source.BATCH,
    }
