"""SIGKILL to each service while a version goes through the loop: nothing is lost, nothing is doubled.

In each test the version that serves is asked all the time, a data set is announced, and its version is trained, judged,
rolled out as a canary on labelled traffic and promoted, whoever is killed meanwhile.
"""

import json
import os
import random
import time
from pathlib import Path

import psutil
import pytest

from services.trainer.domain.spec import EXECUTION_VARIABLE
from services.trainer.outbound.processes import marked
from tests.e2e.fleet.clients import Traffic
from tests.e2e.fleet.invariants import nothing_is_lost_or_doubled
from tests.e2e.fleet.running import SERVICES
from tests.e2e.fleet.scenario import Scenario
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

LONGEST_ANSWER_SECONDS = 45.0
"""What the fleet's gateway is set to wait for its only replica; no request may fail before."""
COUNTED_SECONDS = 30.0


def all_answered(traffic: Traffic) -> None:
    assert traffic.failures == []
    assert len(traffic.answers) > 30
    assert traffic.longest_seconds < LONGEST_ANSWER_SECONDS


def pause(dice: random.Random, longest_seconds: float) -> None:
    """Until the drawn moment."""
    seconds = dice.uniform(0, longest_seconds)
    print(f"waits {seconds:.3f} s")
    time.sleep(seconds)


def test_a_killed_gateway_forgets_nothing_it_accepted(kafka_scenario: Scenario, dice: random.Random) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    scenario.serve_first()
    body = scenario.dataset("gateway-killed", seed=11)
    sent = {name: body[name] for name in ("dataset", "uri", "model")} | {"recipe_json": json.dumps(body["recipe"])}
    with scenario.traffic(seed=dice.getrandbits(30), retrying=True).flowing() as traffic:
        accepted = scenario.client.post_patiently("/datasets", sent, idempotency_key="gateway-killed")
        pause(dice, 0.02)
        fleet.kill("gateway")
        again = scenario.client.post_patiently("/datasets", sent, idempotency_key="gateway-killed")
        assert (accepted.status_code, again.status_code) == (202, 202)
        assert accepted.json()["event_id"] == again.json()["event_id"]
        scenario.reached(version := scenario.registered("gateway-killed"), "rollout_loaded")
        pause(dice, 1.0)
        fleet.kill("gateway")
        scenario.promoted(version)
    all_answered(traffic)
    assert traffic.labelled == len(traffic.answers)
    nothing_is_lost_or_doubled(scenario, admin=True)
    published = [event.body["request"] for event in scenario.log.distinct("feedback.received")]
    mine = [request for request in published if request.startswith(f"{traffic.prefix}-")]
    assert sorted(mine) == sorted(answer.request for answer in traffic.answers)


def test_a_trainer_killed_in_mid_epoch_attaches_to_the_run_that_goes_on(
    kafka_scenario: Scenario, dice: random.Random
) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    scenario.serve_first()
    kill_at = dice.randint(60, 300)
    print(f"killed after step {kill_at}")
    with scenario.traffic(seed=dice.getrandbits(30)).flowing() as traffic:
        scenario.announce("trainer-killed", seed=12, epochs=60)
        run = run_of(scenario, "trainer-killed")
        progress = progress_of(scenario, run, 1)
        until(lambda: step_of(progress) >= kill_at, f"step {kill_at}", 120)
        child = child_of(run, 1)
        fleet.kill("trainer")
        version = scenario.registered("trainer-killed")
        scenario.promoted(version)
    all_answered(traffic)
    assert [step for what, step in steps_of(progress) if what == "resumed"] == []
    until(lambda: not is_running(child), "the run's process ended")
    assert not progress_of(scenario, run, 2).exists()
    assert fleet.rows("trainer", "SELECT attempt, failed_attempts FROM trainer_run WHERE id = ?", run) == [(1, 0)]
    assert fleet.rows("trainer", "SELECT state, fence FROM job WHERE id = ?", run) == [("done", 2)]
    assert [event.body["run"] for event in scenario.log.distinct("model.trained")].count(run) == 1
    nothing_is_lost_or_doubled(scenario, admin=True)


def test_a_run_killed_together_with_its_trainer_goes_on_from_its_checkpoint(
    kafka_scenario: Scenario, dice: random.Random
) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    scenario.serve_first()
    kill_at = dice.randint(60, 300)
    print(f"killed after step {kill_at}")
    with scenario.traffic(seed=dice.getrandbits(30)).flowing() as traffic:
        scenario.announce("run-killed", seed=17, epochs=60)
        run = run_of(scenario, "run-killed")
        first = progress_of(scenario, run, 1)
        until(lambda: step_of(first) >= kill_at, f"step {kill_at}", 120)
        child_of(run, 1).kill()
        fleet.kill("trainer")
        version = scenario.registered("run-killed")
        scenario.promoted(version)
    all_answered(traffic)
    resumed_where_it_stood(first, progress_of(scenario, run, 2), kill_at)
    assert fleet.rows("trainer", "SELECT attempt, failed_attempts FROM trainer_run WHERE id = ?", run) == [(2, 1)]
    assert [event.body["run"] for event in scenario.log.distinct("model.trained")].count(run) == 1
    nothing_is_lost_or_doubled(scenario, admin=True)


def test_a_registry_killed_during_a_rollout_goes_on_with_it(kafka_scenario: Scenario, dice: random.Random) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    before = scenario.serve_first()
    milestones = ("rollout_started", "rollout_loaded", "rollout_advanced")
    with scenario.traffic(seed=dice.getrandbits(30)).flowing() as traffic:
        version = scenario.registered(scenario.announce("registry-killed", seed=13))
        for milestone in sorted(dice.sample(milestones, 2), key=milestones.index):
            print(f"killed after {milestone}")
            scenario.reached(version, milestone)
            pause(dice, 0.3)
            fleet.kill("registry")
            assert scenario.champion() in (before, version)
        scenario.promoted(version)
    all_answered(traffic)
    assert scenario.champion() == version
    nothing_is_lost_or_doubled(scenario, admin=True)


def test_a_replica_killed_while_it_loads_and_while_it_serves_fails_no_request(
    kafka_scenario: Scenario, dice: random.Random
) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    scenario.serve_first()
    with scenario.traffic(seed=dice.getrandbits(30)).flowing() as traffic:
        version = scenario.registered(scenario.announce("inference-killed", seed=14))
        scenario.reached(version, "rollout_started")
        pause(dice, 0.5)
        fleet.kill("inference")
        scenario.reached(version, "rollout_loaded")
        pause(dice, 1.0)
        fleet.kill("inference")
        scenario.promoted(version)
    all_answered(traffic)
    nothing_is_lost_or_doubled(scenario, admin=True)


def test_a_monitor_killed_in_mid_window_counts_each_request_once(kafka_scenario: Scenario, dice: random.Random) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    serving = scenario.serve_first()
    counted, windowed = requests_of(scenario), arrivals_of(scenario)
    with scenario.traffic(seed=dice.getrandbits(30)).flowing() as traffic:
        answered = dice.randint(50, 75)  # one window of 40 is full, the next one is not
        print(f"killed after {answered} requests")
        until(lambda: len(traffic.answers) >= answered, f"{answered} answers", 60)
        fleet.kill("monitor")
    until(
        lambda: arrivals_of(scenario) - windowed == len(traffic.answers), "each stands in one window", COUNTED_SECONDS
    )
    with scenario.traffic(seed=dice.getrandbits(30)).flowing() as canary:
        version = scenario.registered(scenario.announce("monitor-killed", seed=15))
        scenario.reached(version, "rollout_loaded")
        pause(dice, 1.0)
        fleet.kill("monitor")
        scenario.promoted(version)
    for part in (traffic, canary):
        all_answered(part)
    expected = {
        number: traffic.by_version().get(number, 0) + canary.by_version().get(number, 0)
        for number in (serving, version)
    }

    def counts() -> dict[int, int]:
        return {number: requests_of(scenario).get(number, 0) - counted.get(number, 0) for number in expected}

    until(lambda: counts() == expected, f"{expected} requests are counted", COUNTED_SECONDS)
    labels = "SELECT count(*) FROM feedback WHERE item LIKE ? OR item LIKE ?"
    until(
        lambda: (
            fleet.rows("monitor", labels, f"{traffic.prefix}-%", f"{canary.prefix}-%")[0][0]
            == traffic.labelled + canary.labelled
        ),
        "each label is kept",
        COUNTED_SECONDS,
    )
    nothing_is_lost_or_doubled(scenario, admin=True)
    assert counts() == expected


def test_all_five_killed_at_once_converge(kafka_scenario: Scenario, dice: random.Random) -> None:
    scenario, fleet = kafka_scenario, kafka_scenario.fleet
    scenario.serve_first()
    with scenario.traffic(seed=dice.getrandbits(30), retrying=True).flowing() as traffic:
        version = scenario.registered(scenario.announce("all-killed", seed=16))
        scenario.reached(version, "rollout_loaded")
        pause(dice, 1.0)
        fleet.kill(*SERVICES)
        scenario.promoted(version)
    all_answered(traffic)
    nothing_is_lost_or_doubled(scenario, admin=True)


# --- what the trainer and the monitor keep -----------------------------------------------------


def run_of(scenario: Scenario, dataset: str) -> str:
    query = "SELECT id FROM trainer_run WHERE dataset = ?"
    until(lambda: len(scenario.fleet.rows("trainer", query, dataset)) == 1, f"the run on {dataset}", 60)
    return str(scenario.fleet.rows("trainer", query, dataset)[0][0])


def steps_of(progress: Path) -> list[tuple[str, int]]:
    """What the training stage reported: 'step' or 'resumed', and at which step."""
    if not progress.exists():
        return []
    lines = [json.loads(line) for line in progress.read_text().split("\n")[:-1]]
    messages = [line["message"].split() for line in lines if line["stage"] == "train"]
    steps = [("step", int(words[1])) for words in messages if words[0] == "step"]
    return steps + [("resumed", int(words[-1])) for words in messages if words[0] == "resumed"]


def step_of(progress: Path) -> int:
    return max((step for _, step in steps_of(progress)), default=0)


def progress_of(scenario: Scenario, run: str, attempt: int) -> Path:
    return scenario.fleet.home.data / "trainer" / "runs" / run / f"attempt-{attempt}" / "progress.jsonl"


def child_of(run: str, attempt: int) -> psutil.Process:
    """The process of the run."""
    carriers = marked(EXECUTION_VARIABLE, f"{run}.{attempt}")
    (leader,) = [process for process in carriers if os.getsid(process.pid) == process.pid]
    return leader


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def resumed_where_it_stood(first: Path, second: Path, kill_at: int) -> None:
    """The second attempt begins with what the first one reported, and takes no step of its checkpoint again."""
    earlier = first.read_text().split("\n")[:-1]
    later = second.read_text().split("\n")[:-1]
    assert later[: len(earlier)] == earlier
    (resumed,) = [step for what, step in steps_of(second) if what == "resumed"]
    assert kill_at - 20 <= resumed
    own = [json.loads(line)["message"].split() for line in later[len(earlier) :]]
    steps = [int(words[1]) for words in own if words[0] == "step"]
    assert steps[0] > resumed
    assert [words for words in own if words == ["rows", "read"]] == []


def requests_of(scenario: Scenario) -> dict[int, int]:
    """Requests that the monitor has counted, by version."""
    query = "SELECT version, sum(requests) FROM minute WHERE deployment = ? GROUP BY version"
    return {int(version): int(count) for version, count in scenario.fleet.rows("monitor", query, scenario.model)}


def arrivals_of(scenario: Scenario) -> int:
    """Requests in the closed windows of the version that serves and in those that are open, one a variant."""
    query = "SELECT json_extract(primary_version, '$.version'), series FROM watch WHERE deployment = ?"
    (version, series) = scenario.fleet.rows("monitor", query, scenario.model)[0]
    answered = sum(int(one["answered"]) for one in json.loads(series).values())
    closed = "SELECT coalesce(sum(answered), 0) FROM window WHERE deployment = ? AND version = ?"
    return answered + int(scenario.fleet.rows("monitor", closed, scenario.model, version)[0][0])
