"""Models of the Open Inference Protocol are loaded and unloaded on five real processes."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.fleet.scenario import Scenario, playing
from tests.unit.trainer.tiny import texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WAIT_SECONDS = 90.0


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """A fleet that serves a first version."""
    with playing(tmp_path_factory.mktemp("open-inference")) as played:
        played.serve_first()
        yield played


@pytest.fixture
def client(scenario: Scenario) -> Iterator[httpx.Client]:
    address = scenario.fleet.state.endpoints["rest"]
    address = address if address.startswith("http") else f"http://{address}"
    headers = {"authorization": f"Bearer {scenario.fleet.key}"}
    with httpx.Client(base_url=address, headers=headers, timeout=WAIT_SECONDS, trust_env=False) as opened:
        yield opened


def infer(client: httpx.Client, model: str, *sent: str) -> httpx.Response:
    given: dict[str, Any] = {"name": "text", "datatype": "BYTES", "shape": [len(sent)], "data": list(sent)}
    return client.post(f"/v2/models/{model}/infer", json={"inputs": [given]})


def test_a_model_is_unloaded_and_loaded_again(scenario: Scenario, client: httpx.Client) -> None:
    rows = texts(6, seed=3)
    sent = [row["text"] for row in rows]
    model, repository = scenario.model, f"/v2/repository/models/{scenario.model}"
    before = infer(client, model, *sent)
    assert before.status_code == 200, before.text
    version = before.json()["model_version"]
    labels = before.json()["outputs"][0]["data"]
    assert sum(label == row["label"] for label, row in zip(labels, rows, strict=True)) > len(rows) / 2

    assert client.post(f"{repository}/load").status_code == 200, "it is served already"
    assert client.post(f"{repository}/unload").status_code == 200
    assert client.get(f"/v2/models/{model}/ready").status_code == 400
    assert infer(client, model, *sent).status_code == 404
    (entry,) = [one for one in client.post("/v2/repository/index").json() if one["name"] == model]
    assert entry["state"] == "UNAVAILABLE"
    assert client.post(f"{repository}/unload").status_code == 200, "twice is not too often"

    assert client.post(f"{repository}/load").status_code == 200
    assert client.get(f"/v2/models/{model}/ready").status_code == 200
    after = infer(client, model, *sent)
    assert after.status_code == 200, after.text
    assert after.json()["model_version"] == version, "who served before the stop serves again"
    assert after.json()["outputs"] == before.json()["outputs"]


def test_a_version_there_is_not_cannot_be_loaded(scenario: Scenario, client: httpx.Client) -> None:
    sent = {"parameters": {"version": "99"}}
    refused = client.post(f"/v2/repository/models/{scenario.model}/load", json=sent)
    assert refused.status_code == 404
    assert isinstance(refused.json()["error"], str)
