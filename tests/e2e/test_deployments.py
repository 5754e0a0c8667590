"""Deployments of a real fleet: two of one model, one that moves to another model, one that replicas share."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.fleet.running import another_replica
from tests.e2e.fleet.story import MOVE_SECONDS, RECIPE, Story, playing
from tests.unit.trainer.tiny import texts
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = texts(1, seed=9)[0]["text"]
OTHER = "essays"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with playing(tmp_path_factory.mktemp("deployments"), MILLRACE_INFERENCE_PEER_TIMEOUT_SECONDS="5") as opened:
        opened.serve_first()
        yield opened


def answered_by(story: Story, deployment: str) -> tuple[str, int] | None:
    """Model and version of an answer, if there is one."""
    answer = story.client.post(f"/deployments/{deployment}/classify", {"texts": [TEXT]})
    return (answer.json()["model"], answer.json()["version"]) if answer.is_success else None


def state_of(story: Story, deployment: str) -> dict[str, Any]:
    shown: dict[str, Any] = story.client.get_patiently(f"/deployments/{deployment}").json()
    return shown


def loaded_on(story: Story, deployment: str) -> set[str]:
    """The replicas whose newest reports say that they have the deployment ready."""
    newest = {event.body["replica"]: event.body for event in story.log.all("replica.reported")}
    return {
        replica
        for replica, report in newest.items()
        if not report["leaving"]
        and any(part["deployment"] == deployment and part["state"] == "ready" for part in report["versions"])
    }


def create(story: Story, deployment: str, **spec: object) -> None:
    created = story.client.post("/deployments", {"deployment": deployment, "model": story.model, **spec})
    assert created.status_code == 201, created.text
    started = story.client.post(f"/deployments/{deployment}/rollouts", {"version": "1"})
    assert started.is_success, started.text
    until(lambda: answered_by(story, deployment) == (story.model, 1), f"{deployment} serves", MOVE_SECONDS)


def test_two_deployments_of_one_model_serve_versions_of_their_own_and_one_is_deleted(story: Story) -> None:
    create(story, "staging", automatic=False)
    second = story.registered(story.announce("topics-second", seed=3))
    story.reached(second, "rollout_loaded")
    shown = state_of(story, "staging")
    assert (shown["version"], shown["rollout"]["version"], shown["aliases"]["champion"]["version"]) == (1, 1, 1)
    promoted = story.client.post(f"/deployments/{story.model}/rollouts:promote", {"reason": "seen enough"})
    assert promoted.json()["version"] == second
    until(lambda: answered_by(story, story.model) == (story.model, second), "the new version answers")
    assert answered_by(story, "staging") == (story.model, 1)

    refused = story.client.delete("/deployments/staging")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_stopped")
    assert story.client.post("/deployments/staging:stop", {}).is_success
    assert story.client.delete("/deployments/staging").json()["deleted"]
    assert story.client.get("/deployments/staging").status_code == 404
    asked = {"texts": [TEXT]}
    until(lambda: story.client.post("/deployments/staging/classify", asked).status_code == 404, "nobody knows it")
    assert [one["name"] for one in story.client.get("/deployments").json()["deployments"]] == [story.model]
    until(lambda: not loaded_on(story, "staging"), "no replica holds it")


def test_a_deployment_moves_to_another_model_and_back_while_every_request_is_answered(story: Story) -> None:
    before = state_of(story, story.model)["version"]
    path = story.write("essays", texts(240, seed=4))
    body = {"dataset": "essays", "uri": path.as_uri(), "model": OTHER, "recipe_json": json.dumps(RECIPE)}
    assert story.client.post("/datasets", {**body, "hold_back": True}).status_code == 202
    until(lambda: story.client.get(f"/models/{OTHER}/versions/1").is_success, "essays has a version", MOVE_SECONDS)
    assert story.client.get(f"/deployments/{OTHER}").status_code == 404, "a version that is held back makes none"

    with story.traffic(seed=5).flowing() as traffic:
        changed = story.client.patch(f"/deployments/{story.model}", {"model": OTHER, "reason": "a better taxonomy"})
        assert (changed.json()["model"], changed.json()["serving_model"]) == (OTHER, story.model)
        started = story.client.post(f"/deployments/{story.model}/rollouts", {"version": "1"})
        assert started.is_success, started.text
        until(lambda: answered_by(story, story.model) == (OTHER, 1), "the other model answers", MOVE_SECONDS)
        moved = state_of(story, story.model)
        assert (moved["serving_model"], moved["aliases"]["previous"]) == (
            OTHER, {"model": story.model, "version": before},
        )  # fmt: skip
        assert story.client.post(f"/deployments/{story.model}:rollback", {"reason": "it was not"}).is_success
        until(lambda: answered_by(story, story.model) == (story.model, before), "the old one is back", MOVE_SECONDS)
    assert traffic.failures == []
    back = state_of(story, story.model)
    assert (back["model"], back["serving_model"]) == (story.model, story.model)


def test_replicas_share_a_deployment_and_take_over_from_one_that_is_killed(story: Story) -> None:
    create(story, "shared", automatic=False, replicas=1)
    first = state_of(story, "shared")
    assert first["placement"]["replicas"] == 1
    names = [f"spare-{number}" for number in range(2)]
    with another_replica(story.fleet, names[0]) as one, another_replica(story.fleet, names[1]) as two:
        spare = dict(zip(names, (one, two), strict=True))
        until(lambda: len(loaded_on(story, story.model)) == 3, "every replica has what is placed on all", MOVE_SECONDS)
        until(lambda: len(loaded_on(story, "shared")) == 1, "one replica has the shared one", MOVE_SECONDS)
        (holder,) = loaded_on(story, "shared")
        if holder in spare:
            os.kill(spare[holder].pid, signal.SIGKILL)
        else:
            os.kill(story.fleet.pid("inference"), signal.SIGSTOP)  # it would be restarted; silent is as good as gone
        try:
            until(lambda: bool(loaded_on(story, "shared") - {holder}), "another one takes over", MOVE_SECONDS)
            until(lambda: answered_by(story, "shared") == (story.model, 1), "and answers", MOVE_SECONDS)
        finally:
            if holder not in spare:
                os.kill(story.fleet.pid("inference"), signal.SIGCONT)
