"""Changes that are asked for twice, on condition, or only to see."""

import asyncio
from typing import Any

import pytest

from services.contracts.errors import Kind
from services.contracts.rpc import registry_pb2 as wire
from tests.integration.registry.door import Door
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


async def prepare(door: Door, method: str) -> None:
    moment = CHANGES[method][0]
    if moment == "two_versions":
        await door.registry.serving_one()
        await door.registry.trains("run-2", against=1, deploy=False)
    elif moment == "stopped":
        await door.registry.serving_one()
        await door.ask("StopDeployment", RolloutCommand(deployment=MODEL))
    elif moment == "pending":
        await door.registry.serving_one()
        await door.ask("UpdateDeployment", wire.UpdateDeploymentRequest(deployment=MODEL, approval="manual"))
        await door.registry.trains("run-2", against=1)
    elif moment == "paused":
        await door.registry.canary_of_two()
        await door.ask("PauseRollout", RolloutCommand(deployment=MODEL))
    else:
        await getattr(door.registry, moment)()


def test_the_table_of_changes_is_complete() -> None:
    methods = {method.name for method in wire.DESCRIPTOR.services_by_name["RegistryService"].methods}
    assert {name for name in methods if not name.startswith(("Get", "List"))} == set(CHANGES)


@pytest.mark.parametrize("method", CHANGES)
async def test_a_repeated_key_has_one_effect_and_gets_the_present_state(door: Door, method: str) -> None:
    await prepare(door, method)
    first = await door.ask(method, request(method), once="key-1")
    after, told = await door.registry.kinds(), await door.registry.wanted()
    again = await door.ask(method, request(method), once="key-1")
    assert again == first
    assert await door.registry.kinds() == after
    assert await door.registry.wanted() == told
    other = request(method, reason="another one")
    assert await door.refused(door.ask(method, other, once="key-1")) == (Kind.INVALID, "key_reused", "idempotency-key")


@pytest.mark.parametrize("method", CHANGES)
async def test_a_dry_run_says_so_keeps_nothing_and_uses_up_no_key(door: Door, method: str) -> None:
    await prepare(door, method)
    before, facts = await door.registry.model(), await door.registry.kinds()
    tried = await door.ask(method, request(method, dry_run=True), once="key-1")
    assert tried.dry_run
    assert await door.registry.model() == before
    assert await door.registry.kinds() == facts
    done = await door.ask(method, request(method), once="key-1")
    assert not done.dry_run
    done.dry_run = True
    for moment in (done.rollout, tried.rollout) if method != "SetAlias" else ():
        moment.ClearField("started_at")
        moment.ClearField("changed_at")
    assert done == tried, "what was shown is what came"


async def test_two_who_ask_at_once_with_one_key_have_one_effect(door: Door) -> None:
    await door.registry.canary_of_two()
    asked = [door.ask("StopDeployment", request("StopDeployment"), once="key-1") for _ in range(5)]
    answers = await asyncio.gather(*asked)
    assert len({answer.generation for answer in answers}) == 1
    assert (await door.registry.kinds()).count("deployment_stopped") == 1


async def test_a_refused_call_leaves_its_key_unused(door: Door) -> None:
    await door.registry.serving_one()
    pause = request("PauseRollout")
    for _ in range(2):
        assert (await door.refused(door.ask("PauseRollout", pause, once="key-1")))[1] == "no_rollout"
    await door.registry.trains("run-2", against=1)
    await door.registry.reports(1, 2)
    assert (await door.ask("PauseRollout", pause, once="key-1")).rollout.state == "paused"


async def test_a_repetition_is_answered_although_what_it_named_has_moved(door: Door) -> None:
    await door.registry.serving_one()
    await door.registry.trains("run-2", against=1, deploy=False)
    await door.ask("SetAlias", Alias(model=MODEL, alias="next", version=2))
    start = Start(deployment=MODEL, version="@next", expected_generation=3)
    begun = await door.ask("StartRollout", start, once="key-1")
    await door.ask("SetAlias", Alias(model=MODEL, alias="next"))
    again = await door.ask("StartRollout", start, once="key-1")
    assert (again.rollout.id, again.generation) == (begun.rollout.id, begun.generation)


async def test_a_key_is_the_tenants_method_and_requests_own(door: Door) -> None:
    await door.registry.canary_of_two()
    await door.ask("PauseRollout", RolloutCommand(deployment=MODEL), once="key-1")
    refused = await door.refused(door.ask("RollBack", RolloutCommand(deployment=MODEL), once="key-1"))
    assert refused == (Kind.INVALID, "key_reused", "idempotency-key")
    refused = await door.refused(door.ask("RollBack", RolloutCommand(deployment=MODEL), once="x" * 201))
    assert refused == (Kind.INVALID, "bad_key", "idempotency-key")


@pytest.mark.parametrize("method", [method for method in CHANGES if method not in ("SetAlias", "CreateDeployment")])
async def test_a_change_that_rests_on_an_older_generation_is_refused(door: Door, method: str) -> None:
    await prepare(door, method)
    present = (await door.registry.deployment()).generation
    stale = await door.refused(door.ask(method, request(method, expected_generation=present - 1)))
    assert stale == (Kind.STALE, "precondition_failed", "expected_generation")
    assert (await door.registry.deployment()).generation == present
    assert (await door.ask(method, request(method, expected_generation=present))).generation > present


async def test_of_two_who_saw_the_same_generation_one_wins(door: Door) -> None:
    await door.registry.canary_of_two()
    seen = (await door.registry.deployment()).generation
    pause, stop = (
        RolloutCommand(deployment=MODEL, expected_generation=seen),
        RolloutCommand(deployment=MODEL, expected_generation=seen),
    )
    asked = [door.ask("PauseRollout", pause), door.ask("StopDeployment", stop)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(outcome, BaseException) for outcome in outcomes) == 1


async def test_generation_0_asks_that_the_deployment_is_not_there_yet(door: Door) -> None:
    await door.registry.trains("run-1", deploy=False)
    first = Start(deployment=MODEL, version="1", expected_generation=0)
    assert (await door.ask("StartRollout", first)).generation == 2
    assert (await door.refused(door.ask("StartRollout", first)))[1] == "precondition_failed"
