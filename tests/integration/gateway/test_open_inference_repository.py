"""Models of the Open Inference Protocol are loaded and unloaded by a running gateway, at a registry that stands in."""

import asyncio
from typing import Any

import grpc
import pytest

from services.contracts.events import Role
from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.inbound.oip.grpc import SERVICE
from tests.integration.gateway.gateway import GatewayUnderTest, target
from tests.integration.gateway.open_inference import INFER, call, in_grpc, infer_request, serving
from tests.waiting import LIMIT_SECONDS


def as_desired(gateway: GatewayUnderTest, *targets: Any) -> Any:
    """A registry that wants these targets from the move on."""

    async def move(request: Any) -> int:
        await gateway.deploy(*targets)
        return gateway.generation

    return move


async def test_a_model_is_unloaded_and_loaded_again_in_the_callers_own_name(gateway: GatewayUnderTest) -> None:
    await serving(gateway, 1, 2)
    gateway.registry.moves = as_desired(gateway, target(1, Role.DRAINING, 0))
    assert (await gateway.client.post("/v2/repository/models/news/unload", json={})).status_code == 200
    method, request = gateway.registry.moved[-1]
    assert (method, request.deployment) == ("StopDeployment", "news")
    assert gateway.registry.metadata["authorization"] == gateway.metadata[0][1]
    assert (await gateway.client.get("/v2/models/news/ready")).status_code == 400
    (entry,) = (await gateway.client.post("/v2/repository/index")).json()
    assert (entry["version"], entry["state"]) == ("", "UNAVAILABLE")
    gateway.registry.moves = as_desired(gateway, target(2), target(1, Role.DRAINING, 0))
    assert (await gateway.client.post("/v2/repository/models/news/load", content=b"{}")).status_code == 200
    method, request = gateway.registry.moved[-1]
    assert (method, request.deployment, request.version) == ("StartRollout", "news", "2"), "the champion"
    assert (await gateway.client.get("/v2/models/news")).json()["versions"] == ["2"]
    assert (await gateway.client.post(INFER, json=infer_request("a"))).json()["model_version"] == "2"


async def test_over_grpc_too_and_a_second_unload_asks_for_nothing(gateway: GatewayUnderTest) -> None:
    await serving(gateway, 1, 2)
    gateway.registry.moves = as_desired(gateway)
    unload = call(gateway, "RepositoryModelUnload", timeout=LIMIT_SECONDS)
    await unload(model_name="news", parameters={"unload_dependents": pb.ModelRepositoryParameter(bool_param=True)})
    await unload(model_name="news")
    assert len(gateway.registry.moved) == 1
    gateway.registry.moves = as_desired(gateway, target(1))
    version = {"version": pb.ModelRepositoryParameter(string_param="1")}
    await call(gateway, "RepositoryModelLoad", timeout=LIMIT_SECONDS)(model_name="news", parameters=version)
    assert [request.version for _, request in gateway.registry.moved[1:]] == ["1"]
    assert (await gateway.rpc_method(SERVICE, "ModelInfer")(in_grpc("a"))).model_version == "1"


async def test_what_is_served_already_is_not_rolled_out_again(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    load = "/v2/repository/models/news/load"
    assert (await gateway.client.post(load)).status_code == 200
    assert (await gateway.client.post(load, json={"parameters": {"version": "1"}})).status_code == 200
    assert gateway.registry.moved == []


async def test_a_deployment_that_was_never_served_gets_the_latest_version_that_passed(
    gateway: GatewayUnderTest,
) -> None:
    await gateway.replica("replica-1", 3)
    gateway.registry.model.aliases.clear()
    load = "/v2/repository/models/news/load"
    reply = await gateway.client.post(load)
    assert (reply.status_code, "no version that passed" in reply.json()["error"]) == (409, True)
    for number, status in ((1, "passed"), (3, "passed"), (4, "refused")):
        gateway.registry.model.versions.add(model="news", number=number, status=status)
    gateway.registry.moves = as_desired(gateway, target(3))
    assert (await gateway.client.post(load)).status_code == 200
    assert [request.version for _, request in gateway.registry.moved] == ["3"]


async def test_a_stopped_deployment_gets_the_version_back_that_served_last(gateway: GatewayUnderTest) -> None:
    await serving(gateway, 1, 2)
    await gateway.deploy(target(1, Role.DRAINING, 0))
    gateway.registry.model.aliases.clear()
    gateway.registry.model.aliases["previous"] = 1
    gateway.registry.model.versions.add(model="news", number=2, status="passed")
    gateway.registry.moves = as_desired(gateway, target(1))
    async with asyncio.timeout(LIMIT_SECONDS):
        while (await gateway.client.get("/v2/models/news/ready")).status_code == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await gateway.client.post("/v2/repository/models/news/load")).status_code == 200
    assert [request.version for _, request in gateway.registry.moved] == ["1"]


async def test_an_alias_names_the_version_to_load(gateway: GatewayUnderTest) -> None:
    await serving(gateway, 1, 5)
    gateway.registry.model.aliases["challenger"] = 5
    gateway.registry.moves = as_desired(gateway, target(1), target(5, Role.CANARY, 0))
    sent = {"parameters": {"version": "@challenger"}}
    assert (await gateway.client.post("/v2/repository/models/news/load", json=sent)).status_code == 200
    assert [request.version for _, request in gateway.registry.moved] == ["5"]


async def test_a_load_that_is_rolled_back_says_why_and_one_without_end_meets_its_deadline(
    gateway: GatewayUnderTest,
) -> None:
    await serving(gateway)
    gateway.registry.moves = as_desired(gateway, target(1))
    load = "/v2/repository/models/news/load"
    reply = await gateway.client.post(load, json={"parameters": {"version": "2"}})
    assert (reply.status_code, "Version 2 of 'news' could not be loaded: test" in reply.json()["error"]) == (409, True)
    gateway.registry.moves = as_desired(gateway, target(1), target(2, Role.CANARY, 0))
    version = {"version": pb.ModelRepositoryParameter(int64_param=2)}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(gateway, "RepositoryModelLoad", timeout=0.3)(model_name="news", parameters=version)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_what_the_registry_does_not_know_cannot_be_loaded_nor_unloaded(gateway: GatewayUnderTest) -> None:
    await serving(gateway)
    assert (await gateway.client.post("/v2/repository/models/nobody/load")).status_code == 404
    assert (await gateway.client.post("/v2/repository/models/nobody/unload")).status_code == 404
    assert gateway.registry.moved == []
