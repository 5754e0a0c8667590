"""Changes that are asked for twice, on condition, or only to see."""

import asyncio
from typing import Any

import pytest

from services.contracts.errors import Kind
from services.contracts.rpc import registry_pb2 as wire
from tests.integration.registry.client import RegistryClient
from tests.unit.registry.scenario import MODEL

Alias, Start, RolloutCommand = wire.SetAliasRequest, wire.StartRolloutRequest, wire.MoveRolloutRequest

CHANGES: dict[str, tuple[str, Any]] = {
    "SetAlias": ("serving_one", Alias(model=MODEL, alias="stable", version=1)),
    "CreateDeployment": ("serving_one", wire.CreateDeploymentRequest(deployment="staging", model=MODEL)),
    "UpdateDeployment": ("serving_one", wire.UpdateDeploymentRequest(deployment=MODEL, replicas=2)),
    "DeleteDeployment": ("stopped", RolloutCommand(deployment=MODEL)),
    "ApproveRollout": ("pending", RolloutCommand(deployment=MODEL)),
    "StartRollout": ("two_versions", Start(deployment=MODEL, version="2")),
    "PauseRollout": ("canary_of_two", RolloutCommand(deployment=MODEL)),
    "ResumeRollout": ("paused", RolloutCommand(deployment=MODEL)),
    "PromoteRollout": ("canary_of_two", RolloutCommand(deployment=MODEL)),
    "RollBack": ("canary_of_two", RolloutCommand(deployment=MODEL)),
    "StopDeployment": ("canary_of_two", RolloutCommand(deployment=MODEL)),
}
"""Every method that changes something: a moment in which it may, and the request."""


def request(method: str, **more: object) -> Any:
    made = type(CHANGES[method][1])()
    made.CopyFrom(CHANGES[method][1])
    for name, value in more.items():
        setattr(made, name, value)
    return made


async def prepare(client: RegistryClient, method: str) -> None:
    timestamp = CHANGES[method][0]
    if timestamp == "two_versions":
        await client.registry.serving_one()
        await client.registry.trains("run-2", against=1, deploy=False)
    elif timestamp == "stopped":
        await client.registry.serving_one()
        await client.call("StopDeployment", RolloutCommand(deployment=MODEL))
    elif timestamp == "pending":
        await client.registry.serving_one()
        await client.call("UpdateDeployment", wire.UpdateDeploymentRequest(deployment=MODEL, approval="manual"))
        await client.registry.trains("run-2", against=1)
    elif timestamp == "paused":
        await client.registry.canary_of_two()
        await client.call("PauseRollout", RolloutCommand(deployment=MODEL))
    else:
        await getattr(client.registry, timestamp)()


def test_the_table_of_changes_is_complete() -> None:
    methods = {method.name for method in wire.DESCRIPTOR.services_by_name["RegistryService"].methods}
    assert {name for name in methods if not name.startswith(("Get", "List"))} == set(CHANGES)


@pytest.mark.parametrize("method", CHANGES)
async def test_a_repeated_key_has_one_effect_and_gets_the_current_state(client: RegistryClient, method: str) -> None:
    await prepare(client, method)
    first = await client.call(method, request(method), key="key-1")
    after, published = await client.registry.kinds(), await client.registry.desired()
    again = await client.call(method, request(method), key="key-1")
    assert again == first
    assert await client.registry.kinds() == after
    assert await client.registry.desired() == published
    other = request(method, reason="another one")
    assert await client.refused(client.call(method, other, key="key-1")) == (
        Kind.INVALID,
        "key_reused",
        "idempotency-key",
    )


@pytest.mark.parametrize("method", CHANGES)
async def test_a_dry_run_says_so_keeps_nothing_and_uses_up_no_key(client: RegistryClient, method: str) -> None:
    await prepare(client, method)
    before, facts = await client.registry.model(), await client.registry.kinds()
    tried = await client.call(method, request(method, dry_run=True), key="key-1")
    assert tried.dry_run
    assert await client.registry.model() == before
    assert await client.registry.kinds() == facts
    done = await client.call(method, request(method), key="key-1")
    assert not done.dry_run
    done.dry_run = True
    for timestamp in (done.rollout, tried.rollout) if method != "SetAlias" else ():
        timestamp.ClearField("started_at")
        timestamp.ClearField("changed_at")
    assert done == tried, "what was shown is what came"


async def test_two_calls_at_once_with_one_key_have_one_effect(client: RegistryClient) -> None:
    await client.registry.canary_of_two()
    calls = [client.call("StopDeployment", request("StopDeployment"), key="key-1") for _ in range(5)]
    answers = await asyncio.gather(*calls)
    assert len({answer.generation for answer in answers}) == 1
    assert (await client.registry.kinds()).count("deployment_stopped") == 1


async def test_a_refused_call_leaves_its_key_unused(client: RegistryClient) -> None:
    await client.registry.serving_one()
    pause = request("PauseRollout")
    for _ in range(2):
        assert (await client.refused(client.call("PauseRollout", pause, key="key-1")))[1] == "no_rollout"
    await client.registry.trains("run-2", against=1)
    await client.registry.reports(1, 2)
    assert (await client.call("PauseRollout", pause, key="key-1")).rollout.state == "paused"


async def test_a_repetition_is_answered_although_what_it_named_has_moved(client: RegistryClient) -> None:
    await client.registry.serving_one()
    await client.registry.trains("run-2", against=1, deploy=False)
    await client.call("SetAlias", Alias(model=MODEL, alias="next", version=2))
    start = Start(deployment=MODEL, version="@next", expected_generation=3)
    begun = await client.call("StartRollout", start, key="key-1")
    await client.call("SetAlias", Alias(model=MODEL, alias="next"))
    again = await client.call("StartRollout", start, key="key-1")
    assert (again.rollout.id, again.generation) == (begun.rollout.id, begun.generation)


async def test_a_key_is_the_tenants_method_and_requests_own(client: RegistryClient) -> None:
    await client.registry.canary_of_two()
    await client.call("PauseRollout", RolloutCommand(deployment=MODEL), key="key-1")
    refused = await client.refused(client.call("RollBack", RolloutCommand(deployment=MODEL), key="key-1"))
    assert refused == (Kind.INVALID, "key_reused", "idempotency-key")
    refused = await client.refused(client.call("RollBack", RolloutCommand(deployment=MODEL), key="x" * 201))
    assert refused == (Kind.INVALID, "bad_key", "idempotency-key")


@pytest.mark.parametrize("method", [method for method in CHANGES if method not in ("SetAlias", "CreateDeployment")])
async def test_a_change_that_rests_on_an_older_generation_is_refused(client: RegistryClient, method: str) -> None:
    await prepare(client, method)
    current = (await client.registry.deployment()).generation
    stale = await client.refused(client.call(method, request(method, expected_generation=current - 1)))
    assert stale == (Kind.STALE, "precondition_failed", "expected_generation")
    assert (await client.registry.deployment()).generation == current
    assert (await client.call(method, request(method, expected_generation=current))).generation > current


async def test_of_two_who_saw_the_same_generation_one_wins(client: RegistryClient) -> None:
    await client.registry.canary_of_two()
    seen = (await client.registry.deployment()).generation
    pause, stop = (
        RolloutCommand(deployment=MODEL, expected_generation=seen),
        RolloutCommand(deployment=MODEL, expected_generation=seen),
    )
    calls = [client.call("PauseRollout", pause), client.call("StopDeployment", stop)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, BaseException) for outcome in outcomes) == 1


async def test_generation_0_asks_that_the_deployment_is_not_there_yet(client: RegistryClient) -> None:
    await client.registry.trains("run-1", deploy=False)
    first = Start(deployment=MODEL, version="1", expected_generation=0)
    assert (await client.call("StartRollout", first)).generation == 2
    assert (await client.refused(client.call("StartRollout", first)))[1] == "precondition_failed"
