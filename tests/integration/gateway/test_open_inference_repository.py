"""Models of the Open Inference Protocol are loaded and unloaded by a running gateway, at a registry that stands in."""

import asyncio
from typing import Any

import grpc
import pytest

from services.contracts.events import Role
from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.inbound.oip.grpc import SERVICE
from tests.integration.gateway.open_inference import INFER, asked, call, in_grpc, serving
from tests.integration.gateway.place import Place, target
from tests.waiting import LIMIT_SECONDS


def as_told(place: Place, *targets: Any) -> Any:
    """A registry that wants these targets from the move on."""

    async def move(request: Any) -> int:
        await place.deploy(*targets)
        return place.generation

    return move


async def test_a_model_is_unloaded_and_loaded_again_in_the_callers_own_name(place: Place) -> None:
    await serving(place, 1, 2)
    place.registry.moves = as_told(place, target(1, Role.DRAINING, 0))
    assert (await place.client.post("/v2/repository/models/news/unload", json={})).status_code == 200
    method, request = place.registry.moved[-1]
    assert (method, request.deployment) == ("StopDeployment", "news")
    assert place.registry.metadata["authorization"] == place.metadata[0][1]
    assert (await place.client.get("/v2/models/news/ready")).status_code == 400
    (entry,) = (await place.client.post("/v2/repository/index")).json()
    assert (entry["version"], entry["state"]) == ("", "UNAVAILABLE")
    place.registry.moves = as_told(place, target(2), target(1, Role.DRAINING, 0))
    assert (await place.client.post("/v2/repository/models/news/load", content=b"{}")).status_code == 200
    method, request = place.registry.moved[-1]
    assert (method, request.deployment, request.version) == ("StartRollout", "news", "2"), "the champion"
    assert (await place.client.get("/v2/models/news")).json()["versions"] == ["2"]
    assert (await place.client.post(INFER, json=asked("a"))).json()["model_version"] == "2"


async def test_over_grpc_too_and_a_second_unload_asks_for_nothing(place: Place) -> None:
    await serving(place, 1, 2)
    place.registry.moves = as_told(place)
    unload = call(place, "RepositoryModelUnload", timeout=LIMIT_SECONDS)
    await unload(model_name="news", parameters={"unload_dependents": pb.ModelRepositoryParameter(bool_param=True)})
    await unload(model_name="news")
    assert len(place.registry.moved) == 1
    place.registry.moves = as_told(place, target(1))
    version = {"version": pb.ModelRepositoryParameter(string_param="1")}
    await call(place, "RepositoryModelLoad", timeout=LIMIT_SECONDS)(model_name="news", parameters=version)
    assert [request.version for _, request in place.registry.moved[1:]] == ["1"]
    assert (await place.rpc_method(SERVICE, "ModelInfer")(in_grpc("a"))).model_version == "1"


async def test_what_is_served_already_is_not_rolled_out_again(place: Place) -> None:
    await serving(place)
    load = "/v2/repository/models/news/load"
    assert (await place.client.post(load)).status_code == 200
    assert (await place.client.post(load, json={"parameters": {"version": "1"}})).status_code == 200
    assert place.registry.moved == []


async def test_a_deployment_that_was_never_served_gets_the_latest_version_that_passed(place: Place) -> None:
    await place.replica("replica-1", 3)
    place.registry.model.aliases.clear()
    load = "/v2/repository/models/news/load"
    reply = await place.client.post(load)
    assert (reply.status_code, "no version that passed" in reply.json()["error"]) == (409, True)
    for number, status in ((1, "passed"), (3, "passed"), (4, "refused")):
        place.registry.model.versions.add(model="news", number=number, status=status)
    place.registry.moves = as_told(place, target(3))
    assert (await place.client.post(load)).status_code == 200
    assert [request.version for _, request in place.registry.moved] == ["3"]


async def test_a_stopped_deployment_gets_the_version_back_that_served_last(place: Place) -> None:
    await serving(place, 1, 2)
    await place.deploy(target(1, Role.DRAINING, 0))
    place.registry.model.aliases.clear()
    place.registry.model.aliases["previous"] = 1
    place.registry.model.versions.add(model="news", number=2, status="passed")
    place.registry.moves = as_told(place, target(1))
    async with asyncio.timeout(LIMIT_SECONDS):
        while (await place.client.get("/v2/models/news/ready")).status_code == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await place.client.post("/v2/repository/models/news/load")).status_code == 200
    assert [request.version for _, request in place.registry.moved] == ["1"]


async def test_an_alias_names_the_version_to_load(place: Place) -> None:
    await serving(place, 1, 5)
    place.registry.model.aliases["challenger"] = 5
    place.registry.moves = as_told(place, target(1), target(5, Role.CANARY, 0))
    sent = {"parameters": {"version": "@challenger"}}
    assert (await place.client.post("/v2/repository/models/news/load", json=sent)).status_code == 200
    assert [request.version for _, request in place.registry.moved] == ["5"]


async def test_a_load_that_is_rolled_back_says_why_and_one_without_end_meets_its_deadline(place: Place) -> None:
    await serving(place)
    place.registry.moves = as_told(place, target(1))
    load = "/v2/repository/models/news/load"
    reply = await place.client.post(load, json={"parameters": {"version": "2"}})
    assert (reply.status_code, "Version 2 of 'news' could not be loaded: test" in reply.json()["error"]) == (409, True)
    place.registry.moves = as_told(place, target(1), target(2, Role.CANARY, 0))
    version = {"version": pb.ModelRepositoryParameter(int64_param=2)}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(place, "RepositoryModelLoad", timeout=0.3)(model_name="news", parameters=version)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_what_the_registry_does_not_know_cannot_be_loaded_nor_unloaded(place: Place) -> None:
    await serving(place)
    assert (await place.client.post("/v2/repository/models/nobody/load")).status_code == 404
    assert (await place.client.post("/v2/repository/models/nobody/unload")).status_code == 404
    assert place.registry.moved == []
