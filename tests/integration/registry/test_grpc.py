"""The registry's gRPC door: what is asked, what is refused, and how."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.contracts.errors import Kind
from services.contracts.rpc import registry_pb2 as wire
from services.contracts.rpc.common_pb2 import Page
from tests.integration.registry.client import RegistryClient
from tests.unit.registry.scenario import MODEL


async def test_models_versions_deployments_and_history_are_listed(client: RegistryClient) -> None:
    await client.registry.canary_of_two()
    models = await client.call("ListModels", wire.ListModelsRequest())
    assert [model.name for model in models.models] == [MODEL]
    model = await client.call("GetModel", wire.GetModelRequest(model=MODEL))
    assert dict(model.aliases) == {"champion": 1, "challenger": 2}
    assert [version.number for version in model.versions] == [2, 1]
    champion = await client.call("GetVersion", wire.GetVersionRequest(model=MODEL, version="@champion"))
    assert (champion.number, champion.run, champion.gate.passed) == (1, "run-1", True)
    deployment = await client.call("GetDeployment", wire.GetDeploymentRequest(deployment=MODEL))
    assert {target.version: target.weight for target in deployment.targets} == {1: 90, 2: 10}
    assert (deployment.rollout.state, list(deployment.rollout.weights)) == ("canary", [10, 50])
    listed = await client.call("ListDeployments", wire.ListDeploymentsRequest(page=Page(page_size=1)))
    assert (listed.deployments[0].name, listed.next_page_token) == (MODEL, "")
    request = wire.ListHistoryRequest(stream=f"deployment/{MODEL}", after_sequence=3, page_size=2)
    assert [entry.sequence for entry in (await client.call("ListHistory", request)).entries] == [4, 5]


async def test_a_rollout_is_tried_started_paused_resumed_and_rolled_back_by_its_caller(client: RegistryClient) -> None:
    await client.registry.serving_one()
    await client.registry.trains("run-2", against=1, macro_f1=0.2)
    start = wire.StartRolloutRequest(deployment=MODEL, version="2", reason="I know")
    assert await client.refused(client.call("StartRollout", start)) == (Kind.CONFLICT, "gate_refused", "version")
    start.skip_gate, start.dry_run = True, True
    start.policy.weights.append(25)
    tried = await client.call("StartRollout", start)
    assert (tried.rollout.state, list(tried.rollout.weights)) == ("loading", [25])
    assert (await client.registry.deployment()).rollouts == 1
    start.dry_run = False
    await client.call("StartRollout", start)
    await client.registry.reports(1, 2)
    move = wire.MoveRolloutRequest(deployment=MODEL, reason="careful")
    states = [(await client.call(f"{how}Rollout", move)).rollout.state for how in ("Pause", "Resume")]
    assert states == ["paused", "canary"]
    back = await client.call("RollBack", move)
    assert (back.rollout.state, back.version, back.rollout.actor.partition(":")[0]) == ("rolled_back", 1, "admin")
    assert back.rollout.reason == "careful"


async def test_a_deployment_is_stopped_and_comes_back_with_a_rollout(client: RegistryClient) -> None:
    await client.registry.canary_of_two()
    move = wire.MoveRolloutRequest(deployment=MODEL, reason="nobody asks it")
    stopped = await client.call("StopDeployment", move)
    assert (stopped.stopped, stopped.version, stopped.rollout.state) == (True, 0, "rolled_back")
    assert {target.role for target in stopped.targets} == {"draining"}
    assert (await client.call("StopDeployment", move)).generation == stopped.generation
    await client.registry.wait(30)
    assert (await client.registry.desired()).targets == []
    back = await client.call("StartRollout", wire.StartRolloutRequest(deployment=MODEL, version="@previous"))
    assert (back.stopped, back.rollout.version, list(back.rollout.weights)) == (False, 1, [])
    await client.registry.reports(1)
    assert await client.registry.weights() == {1: 100}


async def test_an_alias_is_set_and_a_reserved_one_is_not(client: RegistryClient) -> None:
    await client.registry.serving_one()
    model = await client.call("SetAlias", wire.SetAliasRequest(model=MODEL, alias="stable", version=1))
    assert dict(model.aliases) == {"champion": 1, "stable": 1}
    reserved = wire.SetAliasRequest(model=MODEL, alias="champion", version=1)
    assert await client.refused(client.call("SetAlias", reserved)) == (Kind.CONFLICT, "reserved_alias", "alias")


INVALID, MISSING, CONFLICT, STALE = Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT, Kind.STALE
Version, RolloutCommand, Start = wire.GetVersionRequest, wire.MoveRolloutRequest, wire.StartRolloutRequest
BACKWARDS = wire.RolloutPolicy(weights=[50, 10])


@pytest.mark.parametrize(
    ("method", "message", "expected"),
    [
        ("GetModel", wire.GetModelRequest(model="nothing"), (MISSING, "unknown_model", "model")),
        ("GetModel", wire.GetModelRequest(model="Not A Name"), (INVALID, "invalid_name", "model")),
        ("GetModel", wire.GetModelRequest(model="nul\0"), (INVALID, "invalid_name", "model")),
        ("GetModel", wire.GetModelRequest(), (INVALID, "invalid_name", "model")),
        ("GetVersion", Version(model=MODEL, version="9"), (MISSING, "unknown_version", "version")),
        ("GetVersion", Version(model=MODEL, version="@x"), (MISSING, "unknown_alias", "version")),
        ("GetVersion", Version(model=MODEL, version="-1"), (MISSING, "unknown_version", "version")),
        *(
            (method, wire.MoveRolloutRequest(deployment="x"), (MISSING, "unknown_deployment", "deployment"))
            for method in ("PauseRollout", "ApproveRollout", "RollBack", "StopDeployment", "DeleteDeployment")
        ),
        (
            "CreateDeployment",
            wire.CreateDeploymentRequest(deployment="x", model="nothing"),
            (MISSING, "unknown_model", "model"),
        ),
        (
            "CreateDeployment",
            wire.CreateDeploymentRequest(deployment="x", model=MODEL, device="tpu"),
            (INVALID, "invalid_spec", "device"),
        ),
        (
            "UpdateDeployment",
            wire.UpdateDeploymentRequest(deployment=MODEL, replicas=2, quorum=3),
            (INVALID, "invalid_spec", "quorum"),
        ),
        ("SetAlias", wire.SetAliasRequest(model=MODEL, alias="A b"), (INVALID, "invalid_name", "alias")),
        ("GetDeployment", wire.GetDeploymentRequest(deployment="x"), (MISSING, "unknown_deployment", "deployment")),
        ("RollBack", RolloutCommand(deployment="x"), (MISSING, "unknown_deployment", "deployment")),
        ("RollBack", RolloutCommand(deployment=MODEL), (CONFLICT, "nothing_to_roll_back_to", "deployment")),
        ("PauseRollout", RolloutCommand(deployment=MODEL), (CONFLICT, "no_rollout", "deployment")),
        ("RollBack", RolloutCommand(deployment=MODEL, reason="x" * 501), (INVALID, "reason_too_long", "reason")),
        ("RollBack", RolloutCommand(deployment=MODEL, reason="\0"), (INVALID, "reason_unprintable", "reason")),
        ("StartRollout", Start(deployment=MODEL, version="1"), (CONFLICT, "already_serving", "version")),
        ("StartRollout", Start(deployment=MODEL, version="1", policy=BACKWARDS), (INVALID, "invalid_policy", "policy")),
        ("ListModels", wire.ListModelsRequest(page=Page(page_token="\0")), (INVALID, "bad_page_token", "page_token")),
        ("ListModels", wire.ListModelsRequest(page=Page(page_token=MODEL)), (INVALID, "bad_page_token", "page_token")),
        ("ListVersions", wire.ListVersionsRequest(model="x"), (MISSING, "unknown_model", "model")),
        ("ListVersions", wire.ListVersionsRequest(model=MODEL, status="good"), (INVALID, "filter_unknown", "status")),
        ("ListHistory", wire.ListHistoryRequest(actor="x" * 101), (INVALID, "filter_too_long", "actor")),
        ("ListHistory", wire.ListHistoryRequest(kind="\0"), (INVALID, "filter_too_long", "kind")),
        (
            "ListHistory",
            wire.ListHistoryRequest(since=Timestamp(seconds=2**40)),
            (INVALID, "invalid_timestamp", "since"),
        ),
        ("GetLineage", wire.GetLineageRequest(model=MODEL, version="9"), (MISSING, "unknown_version", "version")),
        ("GetLineage", wire.GetLineageRequest(model="x", version="1"), (MISSING, "unknown_model", "model")),
        (
            "GetLineage",
            wire.GetLineageRequest(model=MODEL, version="1", as_of=Timestamp(seconds=1)),
            (MISSING, "unknown_model", "model"),
        ),
        (
            "StopDeployment",
            RolloutCommand(deployment=MODEL, expected_generation=9),
            (STALE, "precondition_failed", "expected_generation"),
        ),
        (
            "StopDeployment",
            RolloutCommand(deployment=MODEL, expected_generation=9, dry_run=True),
            (STALE, "precondition_failed", "expected_generation"),
        ),
        ("ListHistory", wire.ListHistoryRequest(stream="../x"), (INVALID, "invalid_name", "stream")),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
async def test_what_cannot_be_done_is_refused_with_its_code_and_field(
    client: RegistryClient, method: str, message: Any, expected: tuple[Kind, str, str]
) -> None:
    await client.registry.serving_one()
    assert await client.refused(client.call(method, message)) == expected
