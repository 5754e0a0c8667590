"""What every control-plane call has: entity tags, conditions, idempotency keys, times and pages in the query."""

import re

import grpc
import pytest

from services.contracts.rpc import registry_pb2
from services.gateway.inbound.grpc_services import REGISTRY
from tests.integration.gateway.gateway import GatewayUnderTest

PATH = "/api/v1/deployments/news"


async def test_a_deployment_carries_a_strong_tag_that_says_its_generation(gateway: GatewayUnderTest) -> None:
    first = await gateway.client.get(PATH)
    assert re.fullmatch(r'"g7-[0-9a-f]{32}"', first.headers["etag"])
    assert first.headers["cache-control"] == "private, no-cache"
    assert (await gateway.client.get(PATH)).headers["etag"] == first.headers["etag"]
    gateway.registry.deployment.rollout.reason = "a verdict came, and the generation stands"
    assert (await gateway.client.get(PATH)).headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize("shape", ["{}", "W/{}", '"other", {}', "*"])
async def test_what_is_known_already_is_304_without_a_body(gateway: GatewayUnderTest, shape: str) -> None:
    tag = (await gateway.client.get(PATH)).headers["etag"]
    known = await gateway.client.get(PATH, headers={"if-none-match": shape.format(tag)})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    gateway.registry.deployment.generation = 8
    if shape != "*":
        assert (await gateway.client.get(PATH, headers={"if-none-match": shape.format(tag)})).status_code == 200


async def test_other_single_resources_carry_a_tag_and_listings_do_not(gateway: GatewayUnderTest) -> None:
    assert re.fullmatch(r'"[0-9a-f]{32}"', (await gateway.client.get("/api/v1/models/news")).headers["etag"])
    assert "etag" not in (await gateway.client.get("/api/v1/history")).headers


async def test_a_change_on_the_tag_that_was_seen_is_made_and_on_an_older_one_412(gateway: GatewayUnderTest) -> None:
    seen = (await gateway.client.get(PATH)).headers["etag"]
    made = await gateway.client.post(f"{PATH}:stop", json={"reason": "x"}, headers={"if-match": seen})
    assert made.status_code == 200
    assert gateway.registry.moved[-1][1].expected_generation == 7
    gateway.registry.deployment.generation = 8
    late = await gateway.client.post(f"{PATH}:stop", json={"reason": "x"}, headers={"if-match": seen})
    assert (late.status_code, late.json()["error"]["code"]) == (412, "precondition_failed")
    assert late.headers["x-should-retry"] == "false"
    by_body = await gateway.client.post(f"{PATH}:stop", json={"expected_generation": 7})
    assert by_body.status_code == 412


async def test_the_same_refusal_by_grpc_is_a_failed_precondition(gateway: GatewayUnderTest) -> None:
    move = registry_pb2.MoveRolloutRequest(deployment="news", expected_generation=3)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.rpc_method(REGISTRY, "StopDeployment")(move)
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
async def test_a_condition_that_cannot_hold_is_refused_and_nothing_is_forwarded(
    gateway: GatewayUnderTest, path: str, tag: str, body: dict[str, int], expected: tuple[int, str]
) -> None:
    reply = await gateway.client.post(path, json=body, headers={"if-match": tag})
    assert (reply.status_code, reply.json()["error"]["code"]) == expected
    assert gateway.registry.moved == []


async def test_the_key_goes_on_to_the_owner_by_either_transport(gateway: GatewayUnderTest) -> None:
    await gateway.client.post(f"{PATH}:stop", json={}, headers={"idempotency-key": "key-1"})
    assert gateway.registry.metadata["idempotency-key"] == "key-1"
    more = (("idempotency-key", "key-2"),)
    await gateway.rpc_method(REGISTRY, "StopDeployment")(registry_pb2.MoveRolloutRequest(deployment="news"), more=more)
    assert gateway.registry.metadata["idempotency-key"] == "key-2"
    await gateway.client.post(f"{PATH}:stop", json={})
    assert "idempotency-key" not in gateway.registry.metadata
    odd = {b"idempotency-key": "schl\u00fcssel".encode()}
    refused = await gateway.client.post(f"{PATH}:stop", json={}, headers=odd)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_key")


async def test_times_and_pages_stand_in_the_query(gateway: GatewayUnderTest) -> None:
    request = {"kind": "alias_moved", "since": "2026-11-25T10:00:00.5Z", "newest_first": "true", "page_token": "t"}
    response = (await gateway.client.get("/api/v1/history", params=request)).json()
    assert response["next_page_token"] == "t"
    assert (response["entries"][0]["kind"], response["entries"][0]["at"]) == ("alias_moved", "2026-11-25T10:00:00.500Z")
    for wrong in ("yesterday", "2026-11-25", "99999-01-01T00:00:00Z", ""):
        refused = await gateway.client.get("/api/v1/history", params={"since": wrong})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "since")
    number = await gateway.client.get("/api/v1/deployments/news/windows/first")
    assert (number.status_code, number.json()["error"]["field"]) == (422, "number")
