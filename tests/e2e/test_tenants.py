"""Two tenants of one fleet give a model the same name: each trains, serves and sees its own."""

import json
from collections.abc import Iterator

import pytest

from services.contracts.access import KeyRole
from services.kit.core.clock import SystemClock
from services.kit.identity.keys import KeyringFile, NewKey
from tests.e2e.fleet.clients import Client
from tests.e2e.fleet.scenario import RECIPE, Scenario, playing
from tests.unit.trainer.tiny import texts
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TENANT = "acme"
SERVED_SECONDS = 240.0
TEXT = texts(1, seed=9)[0]["text"]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    with playing(tmp_path_factory.mktemp("tenants")) as opened:
        yield opened


def test_each_tenant_is_served_by_its_own_model_of_that_name(scenario: Scenario) -> None:
    ours = scenario.serve_first()
    scenario.reached(second := scenario.registered(scenario.announce("topics-second", seed=3)), "rollout_loaded")
    keyring = KeyringFile(scenario.fleet.home.keys, SystemClock())
    _, key = keyring.create(NewKey(KeyRole.ADMIN, TENANT), by="test")
    theirs = Client(scenario.fleet, key)
    answered = {"texts": [TEXT], "version": ours}
    until(lambda: theirs.get("/models").is_success, "the key is known")
    assert theirs.get("/models").json()["models"] == []
    assert theirs.post("/deployments/topics/classify", {"texts": [TEXT]}).status_code == 404
    path = scenario.write("theirs", texts(240, seed=4))
    body = {"dataset": "theirs", "uri": path.as_uri(), "model": scenario.model, "recipe_json": json.dumps(RECIPE)}
    assert theirs.post("/datasets", body).status_code == 202
    until(lambda: theirs.post("/deployments/topics/classify", answered).is_success, "theirs is served", SERVED_SECONDS)

    outcome = theirs.get("/models/topics").json()
    assert [(one["number"], one["dataset"], one["parent"]) for one in outcome["versions"]] == [(1, "theirs", 0)]
    assert theirs.post("/deployments/topics/classify", {"texts": [TEXT], "version": second}).status_code == 404
    mine = scenario.client.post("/deployments/topics/classify", {"texts": [TEXT], "version": second}).json()
    assert mine["version"] == second
    run = theirs.get("/runs").json()["runs"][0]["run"]
    assert scenario.client.get(f"/runs/{run}").status_code == 404
    theirs.close()

    def logged() -> set[tuple[str, int]]:
        events = scenario.log.all("inference.logged")
        return {(event.headers["ce_tenant"], one["version"]) for event in events for one in event.body["records"]}

    until(lambda: logged() >= {("default", second), (TENANT, 1)}, "each answer is logged for its own tenant")
    assert not {outcome for outcome in logged() if outcome[0] == TENANT} - {(TENANT, 1)}
