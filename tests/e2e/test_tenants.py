"""Two tenants of one fleet give a model the same name: each trains, serves and sees its own."""

import json
from collections.abc import Iterator

import pytest

from services.contracts.access import KeyRole
from services.kit.core.clock import SystemClock
from services.kit.identity.keys import KeyringFile, NewKey
from tests.e2e.fleet.doors import Client
from tests.e2e.fleet.story import RECIPE, Story, playing
from tests.unit.trainer.tiny import texts
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TENANT = "acme"
SERVED_SECONDS = 240.0
TEXT = texts(1, seed=9)[0]["text"]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with playing(tmp_path_factory.mktemp("tenants")) as opened:
        yield opened


def test_each_tenant_is_served_by_its_own_model_of_that_name(story: Story) -> None:
    ours = story.serve_first()
    story.reached(second := story.registered(story.announce("topics-second", seed=3)), "rollout_loaded")
    keyring = KeyringFile(story.fleet.home.keys, SystemClock())
    _, key = keyring.create(NewKey(KeyRole.ADMIN, TENANT), by="test")
    theirs = Client(story.fleet, key)
    asked = {"texts": [TEXT], "version": ours}
    until(lambda: theirs.get("/models").is_success, "the key is known")
    assert theirs.get("/models").json()["models"] == []
    assert theirs.post("/deployments/topics/classify", {"texts": [TEXT]}).status_code == 404
    path = story.write("theirs", texts(240, seed=4))
    body = {"dataset": "theirs", "uri": path.as_uri(), "model": story.model, "recipe_json": json.dumps(RECIPE)}
    assert theirs.post("/datasets", body).status_code == 202
    until(lambda: theirs.post("/deployments/topics/classify", asked).is_success, "theirs is served", SERVED_SECONDS)

    told = theirs.get("/models/topics").json()
    assert [(one["number"], one["dataset"], one["parent"]) for one in told["versions"]] == [(1, "theirs", 0)]
    assert theirs.post("/deployments/topics/classify", {"texts": [TEXT], "version": second}).status_code == 404
    mine = story.client.post("/deployments/topics/classify", {"texts": [TEXT], "version": second}).json()
    assert mine["version"] == second
    run = theirs.get("/runs").json()["runs"][0]["run"]
    assert story.client.get(f"/runs/{run}").status_code == 404
    theirs.close()

    def logged() -> set[tuple[str, int]]:
        events = story.log.all("inference.logged")
        return {(event.headers["ce_tenant"], one["version"]) for event in events for one in event.body["records"]}

    until(lambda: logged() >= {("default", second), (TENANT, 1)}, "each answer is logged for its own tenant")
    assert not {told for told in logged() if told[0] == TENANT} - {(TENANT, 1)}
