"""What every control-plane call has: entity tags, conditions, idempotency keys, times and pages in the query."""

import re

import grpc
import pytest

from services.contracts.rpc import registry_pb2
from services.gateway.inbound.grpc_services import REGISTRY
from tests.integration.gateway.place import Place

PATH = "/api/v1/deployments/news"


async def test_a_deployment_carries_a_strong_tag_that_says_its_generation(place: Place) -> None:
    first = await place.client.get(PATH)
    assert re.fullmatch(r'"g7-[0-9a-f]{32}"', first.headers["etag"])
    assert first.headers["cache-control"] == "private, no-cache"
    assert (await place.client.get(PATH)).headers["etag"] == first.headers["etag"]
    place.registry.deployment.rollout.reason = "a verdict came, and the generation stands"
    assert (await place.client.get(PATH)).headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize("shape", ["{}", "W/{}", '"other", {}', "*"])
async def test_what_is_known_already_is_304_without_a_body(place: Place, shape: str) -> None:
    tag = (await place.client.get(PATH)).headers["etag"]
    known = await place.client.get(PATH, headers={"if-none-match": shape.format(tag)})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    place.registry.deployment.generation = 8
    if shape != "*":
        assert (await place.client.get(PATH, headers={"if-none-match": shape.format(tag)})).status_code == 200


async def test_other_single_resources_carry_a_tag_and_listings_do_not(place: Place) -> None:
    assert re.fullmatch(r'"[0-9a-f]{32}"', (await place.client.get("/api/v1/models/news")).headers["etag"])
    assert "etag" not in (await place.client.get("/api/v1/history")).headers


async def test_a_change_on_the_tag_that_was_seen_is_made_and_on_an_older_one_412(place: Place) -> None:
    seen = (await place.client.get(PATH)).headers["etag"]
    made = await place.client.post(f"{PATH}:stop", json={"reason": "x"}, headers={"if-match": seen})
    assert made.status_code == 200
    assert place.registry.moved[-1][1].expected_generation == 7
    place.registry.deployment.generation = 8
    late = await place.client.post(f"{PATH}:stop", json={"reason": "x"}, headers={"if-match": seen})
    assert (late.status_code, late.json()["error"]["code"]) == (412, "precondition_failed")
    assert late.headers["x-should-retry"] == "false"
    by_body = await place.client.post(f"{PATH}:stop", json={"expected_generation": 7})
    assert by_body.status_code == 412


async def test_the_same_refusal_by_grpc_is_a_failed_precondition(place: Place) -> None:
    move = registry_pb2.MoveRolloutRequest(deployment="news", expected_generation=3)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await place.rpc_method(REGISTRY, "StopDeployment")(move)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("path", "tag", "body", "expected"),
    [
        (f"{PATH}:stop", 'W/"g7-x"', {}, (412, "unknown_etag")),
        (f"{PATH}:stop", '"nothing-of-ours"', {}, (412, "unknown_etag")),
        (f"{PATH}:stop", "*", {}, (400, "malformed")),
        (f"{PATH}:stop", "g7", {}, (400, "malformed")),
        (f"{PATH}:stop", f'"g7-{"0" * 32}", "g8-{"0" * 32}"', {}, (400, "malformed")),
        (f"{PATH}:stop", f'"g7-{"0" * 32}"', {"expected_generation": 8}, (400, "malformed")),
        ("/api/v1/runs/run-1:cancel", f'"g7-{"0" * 32}"', {}, (422, "no_condition")),
    ],
)
async def test_a_condition_that_cannot_be_kept_is_refused_and_nothing_is_asked(
    place: Place, path: str, tag: str, body: dict[str, int], expected: tuple[int, str]
) -> None:
    reply = await place.client.post(path, json=body, headers={"if-match": tag})
    assert (reply.status_code, reply.json()["error"]["code"]) == expected
    assert place.registry.moved == []


async def test_the_key_goes_on_to_the_owner_by_either_door(place: Place) -> None:
    await place.client.post(f"{PATH}:stop", json={}, headers={"idempotency-key": "key-1"})
    assert place.registry.metadata["idempotency-key"] == "key-1"
    more = (("idempotency-key", "key-2"),)
    await place.rpc_method(REGISTRY, "StopDeployment")(registry_pb2.MoveRolloutRequest(deployment="news"), more=more)
    assert place.registry.metadata["idempotency-key"] == "key-2"
    await place.client.post(f"{PATH}:stop", json={})
    assert "idempotency-key" not in place.registry.metadata
    odd = {b"idempotency-key": "schl\u00fcssel".encode()}
    refused = await place.client.post(f"{PATH}:stop", json={}, headers=odd)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_key")


async def test_times_and_pages_stand_in_the_query(place: Place) -> None:
    asked = {"kind": "alias_moved", "since": "2026-11-25T10:00:00.5Z", "newest_first": "true", "page_token": "t"}
    told = (await place.client.get("/api/v1/history", params=asked)).json()
    assert told["next_page_token"] == "t"
    assert (told["entries"][0]["kind"], told["entries"][0]["at"]) == ("alias_moved", "2026-11-25T10:00:00.500Z")
    for wrong in ("yesterday", "2026-11-25", "99999-01-01T00:00:00Z", ""):
        refused = await place.client.get("/api/v1/history", params={"since": wrong})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "since")
    number = await place.client.get("/api/v1/deployments/news/windows/first")
    assert (number.status_code, number.json()["error"]["field"]) == (422, "number")
