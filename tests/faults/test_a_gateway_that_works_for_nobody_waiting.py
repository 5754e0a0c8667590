"""SIGKILL to the gateway in the middle of requests by Kafka, and of a batch: nothing is lost, nothing stands twice."""

import hashlib
import json
import random
import threading
import time

import pytest

from tests.e2e.fleet.invariants import nothing_is_lost_or_doubled
from tests.e2e.fleet.scenario import Scenario
from tests.unit.trainer.tiny import texts
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

REQUESTS = 400
ROWS = 6_000
ANSWERED_SECONDS = 120.0


def test_every_request_has_one_answer_whenever_the_gateway_is_killed(
    kafka_scenario: Scenario, dice: random.Random
) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    scenario.serve_first()
    prefix = f"ask-{dice.getrandbits(30)}"
    requests = [f"{prefix}-{number}" for number in range(REQUESTS)]

    def send() -> None:
        for name, row in zip(requests, texts(REQUESTS, seed=dice.getrandbits(30)), strict=True):
            scenario.producer.send_event(
                "inference.requested", f"key-{name}", {"deployment": scenario.model, **_one(row)}, name
            )

    sending = threading.Thread(target=send)
    sending.start()
    for _ in range(2):
        enough = len(answers(scenario, prefix)) + dice.randint(20, 80)
        print(f"killed after {enough} answers")
        until(lambda: len(answers(scenario, prefix)) >= enough, f"{enough} answers", ANSWERED_SECONDS)  # noqa: B023
        fleet.kill("gateway")
    sending.join()
    until(lambda: set(answers(scenario, prefix)) == set(requests), "every request is answered", ANSWERED_SECONDS)
    ids = answers(scenario, prefix)
    assert all(len(seen) == 1 for seen in ids.values())
    assert len({next(iter(seen)) for seen in ids.values()}) == REQUESTS
    completed = [event for event in scenario.log.all("inference.completed") if event.headers["ce_causationid"] in ids]
    assert {event.body["failure"] for event in completed} == {None}
    assert all(event.key == f"key-{event.headers['ce_causationid']}" for event in completed)
    nothing_is_lost_or_doubled(scenario, admin=True)


def _one(row: dict[str, str]) -> dict[str, list[str]]:
    return {"texts": [row["text"]]}


def answers(scenario: Scenario, prefix: str) -> dict[str, set[str]]:
    """Ids of the answers, by the request's event."""
    by_request: dict[str, set[str]] = {}
    for event in scenario.log.all("inference.completed"):
        if (cause := event.headers["ce_causationid"]).startswith(prefix):
            by_request.setdefault(cause, set()).add(event.headers["ce_id"])
    return by_request


def test_a_batch_is_complete_and_in_order_though_the_gateway_was_killed_in_its_middle(
    kafka_scenario: Scenario, dice: random.Random
) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    version = scenario.serve_first()
    path = scenario.write("batch", [{"text": row["text"]} for row in texts(ROWS, seed=dice.getrandbits(30))])
    body = {"deployment": scenario.model, "uri": path.as_uri()}
    batch = scenario.client.post_patiently("/batches", body, idempotency_key="batch-killed").json()["batch"]

    def field(name: str) -> object:
        return scenario.client.get_patiently(f"/batches/{batch}").json()[name]

    for _ in range(2):
        enough = int(str(field("rows"))) + dice.randint(1, 1_000)
        print(f"killed after {enough} rows")
        until(lambda: int(str(field("rows"))) >= enough, f"{enough} rows", ANSWERED_SECONDS)  # noqa: B023
        assert field("status") == "running"
        fleet.kill("gateway")
    again = scenario.client.post_patiently("/batches", body, idempotency_key="batch-killed")
    assert again.json()["batch"] == batch
    until(lambda: field("status") != "running", "the batch has ended", ANSWERED_SECONDS)
    finished = scenario.client.get_patiently(f"/batches/{batch}").json()
    assert (finished["status"], finished["rows"], finished["failed_rows"]) == ("succeeded", ROWS, 0)
    assert (finished["attempt"], finished["versions"]) == (3, [version])
    output = scenario.client.get_patiently(f"/batches/{batch}/output")
    assert [json.loads(line)["row"] for line in output.text.splitlines()] == list(range(1, ROWS + 1))
    assert hashlib.sha256(output.content).hexdigest() == finished["output_sha256"]
    (job,) = fleet.rows("gateway", "SELECT state, fence FROM job WHERE id = ?", batch)
    assert job == ("done", 3)
    time.sleep(1.0)  # the monitor reads what was asked
    nothing_is_lost_or_doubled(scenario, admin=True)
