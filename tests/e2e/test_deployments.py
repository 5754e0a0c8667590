"""Deployments of a real fleet: two of one model, one that moves to another model, one that replicas share."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.fleet.running import another_replica
from tests.e2e.fleet.scenario import MOVE_SECONDS, RECIPE, Scenario, playing
from tests.unit.trainer.tiny import texts
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = texts(1, seed=9)[0]["text"]
OTHER = "essays"


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    with playing(tmp_path_factory.mktemp("deployments"), MILLRACE_INFERENCE_PEER_TIMEOUT_SECONDS="5") as opened:
        opened.serve_first()
        yield opened


def answered_by(scenario: Scenario, deployment: str) -> tuple[str, int] | None:
    """Model and version of an answer, if there is one."""
    answer = scenario.client.post(f"/deployments/{deployment}/classify", {"texts": [TEXT]})
    return (answer.json()["model"], answer.json()["version"]) if answer.is_success else None


def state_of(scenario: Scenario, deployment: str) -> dict[str, Any]:
    shown: dict[str, Any] = scenario.client.get_patiently(f"/deployments/{deployment}").json()
    return shown


def loaded_on(scenario: Scenario, deployment: str) -> set[str]:
    """The replicas whose newest reports say that they have the deployment ready."""
    newest = {event.body["replica"]: event.body for event in scenario.log.all("replica.reported")}
    return {
        replica
        for replica, report in newest.items()
        if not report["leaving"]
        and any(part["deployment"] == deployment and part["state"] == "ready" for part in report["versions"])
    }


def create(scenario: Scenario, deployment: str, **spec: object) -> None:
    created = scenario.client.post("/deployments", {"deployment": deployment, "model": scenario.model, **spec})
    assert created.status_code == 201, created.text
    started = scenario.client.post(f"/deployments/{deployment}/rollouts", {"version": "1"})
    assert started.is_success, started.text
    until(lambda: answered_by(scenario, deployment) == (scenario.model, 1), f"{deployment} serves", MOVE_SECONDS)


def test_two_deployments_of_one_model_serve_versions_of_their_own_and_one_is_deleted(scenario: Scenario) -> None:
    create(scenario, "staging", automatic=False)
    second = scenario.registered(scenario.announce("topics-second", seed=3))
    scenario.reached(second, "rollout_loaded")
    shown = state_of(scenario, "staging")
    assert (shown["version"], shown["rollout"]["version"], shown["aliases"]["champion"]["version"]) == (1, 1, 1)
    promoted = scenario.client.post(f"/deployments/{scenario.model}/rollouts:promote", {"reason": "seen enough"})
    assert promoted.json()["version"] == second
    until(lambda: answered_by(scenario, scenario.model) == (scenario.model, second), "the new version answers")
    assert answered_by(scenario, "staging") == (scenario.model, 1)

    refused = scenario.client.delete("/deployments/staging")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_stopped")
    assert scenario.client.post("/deployments/staging:stop", {}).is_success
    assert scenario.client.delete("/deployments/staging").json()["deleted"]
    assert scenario.client.get("/deployments/staging").status_code == 404
    answered = {"texts": [TEXT]}
    until(lambda: scenario.client.post("/deployments/staging/classify", answered).status_code == 404, "nobody knows it")
    assert [one["name"] for one in scenario.client.get("/deployments").json()["deployments"]] == [scenario.model]
    until(lambda: not loaded_on(scenario, "staging"), "no replica holds it")


def test_a_deployment_moves_to_another_model_and_back_while_every_request_is_answered(scenario: Scenario) -> None:
    before = state_of(scenario, scenario.model)["version"]
    data = scenario.write("essays", texts(240, seed=4))
    body = {"dataset": "essays", "uri": data.as_uri(), "model": OTHER, "recipe_json": json.dumps(RECIPE)}
    assert scenario.client.post("/datasets", {**body, "hold_back": True}).status_code == 202
    until(lambda: scenario.client.get(f"/models/{OTHER}/versions/1").is_success, "essays has a version", MOVE_SECONDS)
    assert scenario.client.get(f"/deployments/{OTHER}").status_code == 404, "a version that is held back makes none"

    deployment = f"/deployments/{scenario.model}"
    with scenario.traffic(seed=5).flowing() as traffic:
        changed = scenario.client.patch(deployment, {"model": OTHER, "reason": "a better taxonomy"})
        assert (changed.json()["model"], changed.json()["serving_model"]) == (OTHER, scenario.model)
        started = scenario.client.post(f"{deployment}/rollouts", {"version": "1"})
        assert started.is_success, started.text
        until(lambda: answered_by(scenario, scenario.model) == (OTHER, 1), "the other model answers", MOVE_SECONDS)
        moved = state_of(scenario, scenario.model)
        assert (moved["serving_model"], moved["aliases"]["previous"]) == (
            OTHER, {"model": scenario.model, "version": before},
        )  # fmt: skip
        assert scenario.client.post(f"{deployment}:rollback", {"reason": "it was not"}).is_success
        until(
            lambda: answered_by(scenario, scenario.model) == (scenario.model, before),
            "the old one is back",
            MOVE_SECONDS,
        )
    assert traffic.failures == []
    back = state_of(scenario, scenario.model)
    assert (back["model"], back["serving_model"]) == (scenario.model, scenario.model)


def test_replicas_share_a_deployment_and_take_over_from_one_that_is_killed(scenario: Scenario) -> None:
    create(scenario, "shared", automatic=False, replicas=1)
    first = state_of(scenario, "shared")
    assert first["placement"]["replicas"] == 1
    names = [f"spare-{number}" for number in range(2)]
    with another_replica(scenario.fleet, names[0]) as one, another_replica(scenario.fleet, names[1]) as two:
        spare = dict(zip(names, (one, two), strict=True))
        until(
            lambda: len(loaded_on(scenario, scenario.model)) == 3,
            "every replica has what is placed on all",
            MOVE_SECONDS,
        )
        until(lambda: len(loaded_on(scenario, "shared")) == 1, "one replica has the shared one", MOVE_SECONDS)
        (holder,) = loaded_on(scenario, "shared")
        if holder in spare:
            os.kill(spare[holder].pid, signal.SIGKILL)
        else:
            os.kill(scenario.fleet.pid("inference"), signal.SIGSTOP)  # it would be restarted; silent is as good as gone
        try:
            until(lambda: bool(loaded_on(scenario, "shared") - {holder}), "another one takes over", MOVE_SECONDS)
            until(lambda: answered_by(scenario, "shared") == (scenario.model, 1), "and answers", MOVE_SECONDS)
        finally:
            if holder not in spare:
                os.kill(scenario.fleet.pid("inference"), signal.SIGCONT)
