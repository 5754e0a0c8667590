"""Apache Kafka goes away and comes back: what was accepted meanwhile is stored and published in order."""

import random

import pytest

from tests.e2e.fleet.invariants import nothing_is_lost_or_doubled, order_holds, outbox_depth
from tests.e2e.fleet.running import SERVICES
from tests.e2e.fleet.scenario import Scenario
from tests.faults.conftest import Server
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

LABELS = 12
NOTICED_SECONDS = 60.0


def test_what_is_accepted_while_the_broker_is_away_is_published_in_order_afterwards(
    kafka_scenario: Scenario, kafka_server: Server, dice: random.Random
) -> None:
    scenario, fleet, client = kafka_scenario, kafka_scenario.fleet, kafka_scenario.client
    version = scenario.serve_first()
    names = [f"away-{dice.getrandbits(30)}-{number}" for number in range(LABELS)]
    kafka_server.stop()
    try:
        for number, name in enumerate(names):
            prediction = client.post(
                f"/deployments/{scenario.model}/classify", {"texts": ["old iron"], "request_id": name}
            )
            assert (prediction.status_code, prediction.json()["version"]) == (200, version)
            feedback_reply = client.post(
                f"/deployments/{scenario.model}/feedback", {"request_id": name, "label": "metal"}
            )
            assert feedback_reply.status_code == 202
            assert outbox_depth(fleet, "gateway") == number + 1
        waiting = [name for name in SERVICES if name not in ("gateway", "inference")]
        until(lambda: not any(map(fleet.is_ready, waiting)), "the loss was noticed", NOTICED_SECONDS)
    finally:
        kafka_server.start()
    until(lambda: all(map(fleet.is_ready, SERVICES)), "every service is ready again", NOTICED_SECONDS)
    until(lambda: outbox_depth(fleet) == 0, "the outboxes are empty", NOTICED_SECONDS)
    until(lambda: len(feedback(scenario, names)) >= LABELS, "all feedback is published", NOTICED_SECONDS)
    order_holds(names, feedback(scenario, names))
    with scenario.traffic(seed=dice.getrandbits(30)).flowing() as traffic:
        scenario.promoted(scenario.registered(scenario.announce("after-the-broker", seed=17)))
    assert traffic.failures == []
    nothing_is_lost_or_doubled(scenario, admin=True)


def feedback(scenario: Scenario, names: list[str]) -> list[str]:
    """Requests of these whose feedback was published, in the order of the topic."""
    return [
        event.body["request"] for event in scenario.log.distinct("feedback.received") if event.body["request"] in names
    ]
