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
    kafka_story: Scenario, dice: random.Random
) -> None:
    story, fleet = kafka_story, kafka_story.fleet
    story.serve_first()
    prefix = f"ask-{dice.getrandbits(30)}"
    asked = [f"{prefix}-{number}" for number in range(REQUESTS)]

    def send() -> None:
        for name, row in zip(asked, texts(REQUESTS, seed=dice.getrandbits(30)), strict=True):
            story.producer.send_event(
                "inference.requested", f"key-{name}", {"deployment": story.model, **_one(row)}, name
            )

    sending = threading.Thread(target=send)
    sending.start()
    for _ in range(2):
        enough = len(answers(story, prefix)) + dice.randint(20, 80)
        print(f"killed after {enough} answers")
        until(lambda: len(answers(story, prefix)) >= enough, f"{enough} answers", ANSWERED_SECONDS)  # noqa: B023
        fleet.kill("gateway")
    sending.join()
    until(lambda: set(answers(story, prefix)) == set(asked), "every request is answered", ANSWERED_SECONDS)
    ids = answers(story, prefix)
    assert all(len(found) == 1 for found in ids.values())
    assert len({next(iter(found)) for found in ids.values()}) == REQUESTS
    told = [event for event in story.log.all("inference.completed") if event.headers["ce_causationid"] in ids]
    assert {event.body["failure"] for event in told} == {None}
    assert all(event.key == f"key-{event.headers['ce_causationid']}" for event in told)
    nothing_is_lost_or_doubled(story, admin=True)


def _one(row: dict[str, str]) -> dict[str, list[str]]:
    return {"texts": [row["text"]]}


def answers(story: Scenario, prefix: str) -> dict[str, set[str]]:
    """Ids of the answers, by the request's event."""
    found: dict[str, set[str]] = {}
    for event in story.log.all("inference.completed"):
        if (cause := event.headers["ce_causationid"]).startswith(prefix):
            found.setdefault(cause, set()).add(event.headers["ce_id"])
    return found


def test_a_batch_is_whole_and_in_order_though_the_gateway_was_killed_in_its_middle(
    kafka_story: Scenario, dice: random.Random
) -> None:
    story, fleet = kafka_story, kafka_story.fleet
    version = story.serve_first()
    path = story.write("batch", [{"text": row["text"]} for row in texts(ROWS, seed=dice.getrandbits(30))])
    body = {"deployment": story.model, "uri": path.as_uri()}
    batch = story.client.post_patiently("/batches", body, idempotency_key="batch-killed").json()["batch"]

    def told(name: str) -> object:
        return story.client.get_patiently(f"/batches/{batch}").json()[name]

    for _ in range(2):
        enough = int(str(told("rows"))) + dice.randint(1, 1_000)
        print(f"killed after {enough} rows")
        until(lambda: int(str(told("rows"))) >= enough, f"{enough} rows", ANSWERED_SECONDS)  # noqa: B023
        assert told("status") == "running"
        fleet.kill("gateway")
    again = story.client.post_patiently("/batches", body, idempotency_key="batch-killed")
    assert again.json()["batch"] == batch
    until(lambda: told("status") != "running", "the batch has ended", ANSWERED_SECONDS)
    whole = story.client.get_patiently(f"/batches/{batch}").json()
    assert (whole["status"], whole["rows"], whole["failed_rows"]) == ("succeeded", ROWS, 0)
    assert (whole["attempt"], whole["versions"]) == (3, [version])
    output = story.client.get_patiently(f"/batches/{batch}/output")
    assert [json.loads(line)["row"] for line in output.text.splitlines()] == list(range(1, ROWS + 1))
    assert hashlib.sha256(output.content).hexdigest() == whole["output_sha256"]
    (job,) = fleet.rows("gateway", "SELECT state, fence FROM job WHERE id = ?", batch)
    assert job == ("done", 3)
    time.sleep(1.0)  # the monitor reads what was asked
    nothing_is_lost_or_doubled(story, admin=True)
